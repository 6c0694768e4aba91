"""The layout of a generation's two OpenSearch indexes, one of passages and one of documents.

Every version of a document has a unique integer `key`, and its passages have the rows `key << 20 | ordinal`. A version
is visible at the change counters from `change` (inclusive) to `removed` (exclusive). A reader reads at one counter, so
it sees either all of a write or nothing, and later writes do not affect it (multi-version concurrency control).
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hyblink.app.core.checks import fold
from hyblink.app.core.sections import decode_sections, encode_sections, sections_of
from hyblink.app.core.types.arrays import IdArray, TermWeights, VectorArray
from hyblink.app.core.types.documents import (
    DocId,
    Document,
    Metadata,
    Passage,
    PassageRow,
    Tier,
    content_of,
    file_name_of,
)
from hyblink.app.engines.opensearch import query_builder as build
from hyblink.app.engines.opensearch.client import Json

ORDINAL_BITS = 20
MAX_PASSAGES = 1 << ORDINAL_BITS
"""The upper bound of the number of passages of a document."""

BAG = "bag"
VDR = "vdr"
"""The names of the index fields with bags of tokens and with VDR weights."""

NEVER = 2**62
"""A change counter larger than any real one."""


@dataclass(frozen=True, slots=True)
class Names:
    """The names of a generation's passage and document indexes, or of the aliases through which a writer writes."""

    passages: str
    documents: str

    @staticmethod
    def of(prefix: str, collection: str, generation: str) -> Names:
        """The index names of a generation."""
        return Names(f"{prefix}-passages-{collection}-{generation}", f"{prefix}-documents-{collection}-{generation}")

    def written(self, term: int) -> Names:
        """The write aliases of a writer's term. They are removed when a later writer starts a new term (fencing)."""
        return Names(f"{self.passages}-w{term}", f"{self.documents}-w{term}")


def rows_of(key: int, passages: int) -> IdArray:
    """The rows of the passages of a document version, given its key and number of passages."""
    return (key << ORDINAL_BITS) + np.arange(passages, dtype=np.int64)


def weights_field(terms: TermWeights) -> dict[str, float]:
    """Term weights as a `rank_features` object, keyed by token id.

    Lucene keeps nine significant bits. `core.weights` has rounded the weights to these, so nothing more is lost.
    """
    return {str(token): weight for token, weight in zip(terms.ids.tolist(), terms.weights.tolist(), strict=True)}


def read_weights(field: Mapping[str, float]) -> TermWeights:
    """Term weights from their `rank_features` object; the inverse of `weights_field`."""
    ids = np.fromiter((int(token) for token in field), dtype=np.int32, count=len(field))
    weights = np.fromiter(field.values(), dtype=np.float32, count=len(field))
    order = np.argsort(ids)
    return TermWeights(ids[order], weights[order])


def vector_field(vector: VectorArray) -> str:
    """A vector as float16 bytes in base64."""
    return base64.b64encode(np.ascontiguousarray(vector, dtype="<f2").tobytes()).decode()


def read_vector(field: str) -> VectorArray:
    """A vector as float32, shape (D,); the inverse of `vector_field`."""
    return np.frombuffer(base64.b64decode(field), dtype="<f2").astype(np.float32)


def document_source(document: Document, key: int, passages: int, content_hash: str, change: int) -> Json:
    """The document index's entry of a document version."""
    return {
        "key": key,
        "doc_id": document.id,
        "title": document.title,
        "text": document.text,
        "lang": document.lang,
        "metadata": dict(document.metadata),
        "sections": encode_sections(document.sections),
        "content_hash": content_hash,
        "passages": passages,
        "change": change,
    }


def passage_sources(
    document: Document, key: int, windows: tuple[tuple[int, int], ...], bags: tuple[TermWeights, ...], change: int
) -> Iterator[tuple[int, Json]]:
    """The passage index's entries of a document version, as (row, source).

    The analyzed field `content` holds heading and text in Unicode NFC. The original text is stored too if it differs.
    """
    sections = sections_of(document, windows)
    name = file_name_of(document.title, document.metadata)
    shared = {
        "doc_id": document.id,
        "title": document.title,
        "lang": document.lang,
        "tier": Tier.INSTANT.value,
        "change": change,
        **build.metadata_fields(document.metadata),
    }
    for ordinal, ((start, end), bag) in enumerate(zip(windows, bags, strict=True)):
        section = next(sections)
        text = document.text[start:end]
        folded = fold(text)
        source = {
            **shared,
            "row": key << ORDINAL_BITS | ordinal,
            "ordinal": ordinal,
            "start": start,
            "end": end,
            "content": fold(_first_line(document.title, section.path, name)) + folded,
            BAG: weights_field(bag),
        }
        if folded != text:
            source["text"] = text
        if name:
            source["file_name"] = name
        if section.path:
            source["path"] = list(section.path)
        if section.place:
            source["place"] = section.place
        yield source["row"], source


def _first_line(title: str, path: Sequence[str], name: str) -> str:
    """What stands before the text in `content`, with its line break."""
    return content_of(title, path, name, "")


PASSAGE_FIELDS = [
    "row", "doc_id", "ordinal", "start", "end", "title", "text", "content", "vector_change", "metadata",
    "path", "place", "file_name",
]  # fmt: skip
"""The fields that `read_passage` needs."""


def read_passage(source: Mapping[str, object], change: int) -> Passage:
    """The passage of an entry, with its tier as of the counter `change`."""
    fields: Json = dict(source)
    title = fields["title"]
    text = fields.get("text")
    path = tuple(fields.get("path", ()))
    name = fields.get("file_name", "")
    if text is None:
        text = fields["content"][len(fold(_first_line(title, path, name))) :]
    return Passage(
        PassageRow(fields["row"]),
        DocId(fields["doc_id"]),
        fields["ordinal"],
        fields["start"],
        fields["end"],
        title,
        text,
        Tier.FULL if fields.get("vector_change", NEVER) <= change else Tier.INSTANT,
        path,
        fields.get("place", ""),
        name,
    )


def read_document(source: Mapping[str, object]) -> Document:
    """The document of a document index's entry."""
    fields: Json = dict(source)
    metadata: Metadata = fields["metadata"]
    sections = decode_sections(fields.get("sections", ""))
    return Document(DocId(fields["doc_id"]), fields["text"], fields["title"], fields["lang"], metadata, sections)


def is_visible(source: Mapping[str, object], change: int) -> bool:
    """Whether an entry is visible at the counter `change`."""
    fields: Json = dict(source)
    removed = fields.get("removed")
    return bool(fields["change"] <= change and (removed is None or removed > change))
