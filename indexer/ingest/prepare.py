"""Prepares documents for the store: checks the input, cuts it into passages and encodes their bags of tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from hyblink.app.core.checks import check_text
from hyblink.app.core.errors import InvalidInputError, TooLargeError, UserError
from hyblink.app.core.filters import check_metadata
from hyblink.app.core.ports.encoders import BagEncoder
from hyblink.app.core.ports.store import PreparedDocument
from hyblink.app.core.sections import parse_sections, sections_of
from hyblink.app.core.types.collections import CollectionSpec
from hyblink.app.core.types.documents import BulkItem, DocId, Document, content_of, file_name_of
from hyblink.indexer.ingest.chunking import windows

MAX_ID_CHARS = 512
MAX_TITLE_CHARS = 4096
MAX_LANG_CHARS = 64
_FIELDS = {"id", "title", "text", "lang", "metadata", "sections"}


_JOINERS = {0x200C: None, 0x200D: None}
"""Zero-width joiners: not printable according to Python, but legitimate parts of words and emoji."""


def parse_document(row: object, max_chars: int) -> Document:
    """Check a JSON object and build a document from it. `max_chars` limits the text.

    Raises InvalidInputError or TooLargeError that names the field.
    """
    if not isinstance(row, Mapping):
        raise InvalidInputError("a document has the wrong type", received=row, expected="an object")
    unknown = set(row) - _FIELDS
    if unknown:
        raise InvalidInputError(
            "unknown document field",
            received=sorted(map(str, unknown)),
            expected=f"only {', '.join(sorted(_FIELDS))}",
        )
    doc_id = check_text(row.get("id"), "id")
    if not 0 < len(doc_id) <= MAX_ID_CHARS or not doc_id.translate(_JOINERS).isprintable():
        raise InvalidInputError("bad id", received=doc_id, expected=f"1 to {MAX_ID_CHARS} printable characters")
    title = check_text(row.get("title") or "", "title")
    text = check_text(row.get("text", ""), "text")
    lang = check_text(row.get("lang") or "", "lang")
    if len(lang) > MAX_LANG_CHARS:
        raise InvalidInputError(
            "bad lang", received=lang, expected=f"a language tag of up to {MAX_LANG_CHARS} characters"
        )
    if len(title) > MAX_TITLE_CHARS:
        raise TooLargeError("the title is too long", received=len(title), expected=f"{MAX_TITLE_CHARS} characters")
    if len(text) > max_chars:
        raise TooLargeError("the text is too long", received=len(text), expected=f"{max_chars} characters")
    if not title.strip() and not text.strip():
        raise InvalidInputError("the document is empty", received=row, expected="a title or a text")
    sections = parse_sections(row["sections"], len(text)) if row.get("sections") else ()
    return Document(DocId(doc_id), text, title, lang, check_metadata(row.get("metadata") or {}), sections)


def content_hash(document: Document, spans: Sequence[tuple[int, int]]) -> str:
    """The SHA-256 (hex) of everything that passages depend on: all but the metadata, of which only the file."""
    digest = hashlib.sha256()
    parts = [document.title, document.text, document.lang, repr(tuple(spans))]
    if document.sections:
        parts.append(repr([(one.start, one.path, one.place) for one in document.sections]))
    if name := file_name_of(document.title, document.metadata):
        parts.append(name)
    for part in parts:
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(8, "little"))
        digest.update(encoded)
    return digest.hexdigest()


def prepare(
    documents: Sequence[Document | BulkItem], spec: CollectionSpec, bag: BagEncoder
) -> list[PreparedDocument | BulkItem]:
    """Cut documents into passages and encode their bags of tokens, in order. Rejected items are passed through.

    A second document with the same id in one batch is rejected.
    """
    seen: set[str] = set()
    cut: list[tuple[Document, tuple[tuple[int, int], ...]] | BulkItem] = []
    contents: list[str] = []
    for element in documents:
        if isinstance(element, BulkItem):
            cut.append(element)
            continue
        if element.id in seen:
            message = f"the id {element.id!r} stands twice in one batch; expected each id once"
            cut.append(BulkItem(element.id, "rejected", 0, "duplicate_id", message))
            continue
        seen.add(element.id)
        name = file_name_of(element.title, element.metadata)
        spans = windows(element.text, spec.chunk_chars, spec.chunk_overlap_chars, element.sections)
        cut.append((element, spans))
        for (start, end), section in zip(spans, sections_of(element, spans), strict=True):
            contents.append(content_of(element.title, section.path, name, element.text[start:end]))
    bags = bag.encode_passages(contents)
    prepared: list[PreparedDocument | BulkItem] = []
    at = 0
    for item in cut:
        if isinstance(item, BulkItem):
            prepared.append(item)
            continue
        document, spans = item
        prepared.append(
            PreparedDocument(document, spans, tuple(bags[at : at + len(spans)]), content_hash(document, spans))
        )
        at += len(spans)
    return prepared


def rejected(doc_id: object, error: UserError) -> BulkItem:
    """The bulk result item of a document that was rejected with `error`."""
    shown = doc_id if isinstance(doc_id, str) else ""
    return BulkItem(shown.encode("utf-8", "replace").decode()[:MAX_ID_CHARS], "rejected", 0, error.code, str(error))
