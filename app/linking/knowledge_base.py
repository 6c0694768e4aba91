"""Knowledge bases: collections in which each document is an entity.

An entity is stored as a title, a line of aliases, and the description. BM25, VDR and the dense encoder therefore read
the aliases too. `kind`, `world` and `aliases` are metadata, so filters can use them. Storage, encoding, generations and
exports work as for documents. An entity is a single passage; encoders read as much of it as fits their window.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hyblink.app.core.checks import check_text
from hyblink.app.core.errors import ConflictError, InvalidInputError, NotFoundError, TooLargeError, UserError
from hyblink.app.core.filters import check_metadata
from hyblink.app.core.types.collections import CollectionSpec
from hyblink.app.core.types.documents import BulkItem, BulkResult, DocId, Document
from hyblink.app.core.types.linking import Entity
from hyblink.indexer.ingest.documents import DocumentService
from hyblink.indexer.ingest.prepare import parse_document, rejected

_ALIASES = "Also known as:\t"
_SEPARATOR = "\t"
_FIELDS = {"id", "title", "description", "aliases", "kind", "world", "lang", "metadata"}
_RESERVED = ("aliases", "kind", "world")
MAX_ALIASES = 1000
MAX_NAME_CHARS = 512


def entity_spec(name: str, **choices: Any) -> CollectionSpec:
    """Return the spec of a knowledge base: a collection of kind `entities`, whose documents are not chunked."""
    return CollectionSpec(name, kind="entities", chunk_chars=0, chunk_overlap_chars=0, **choices)


def to_document(entity: Entity) -> Document:
    """Return the document that stores an entity. The inverse is `from_document`."""
    own = {"aliases": list(entity.aliases), "kind": entity.kind, "world": entity.world}
    metadata: dict[str, Any] = {**entity.metadata, **{name: value for name, value in own.items() if value}}
    return Document(DocId(entity.id), _line(entity.aliases) + entity.description, entity.title, entity.lang, metadata)


def from_document(document: Document) -> Entity:
    """Return the entity that a document stores. The inverse is `to_document`."""
    metadata = dict(document.metadata)
    aliases = metadata.pop("aliases", None)
    names = tuple(str(alias) for alias in aliases) if isinstance(aliases, list) else ()
    kind, world = (str(metadata.pop(name, "")) for name in ("kind", "world"))
    description = document.text.removeprefix(_line(names))
    return Entity(document.id, document.title, description, names, kind, world, document.lang, metadata)


def names_of(content: str) -> list[str]:
    """Return an entity's title and aliases, parsed from its indexed text (title, newline, stored text)."""
    title, _, rest = content.partition("\n")
    if not rest.startswith(_ALIASES):
        return [title]
    line = rest.partition("\n")[0].removeprefix(_ALIASES)
    return [title, *line.split(_SEPARATOR)]


def description_of(text: str) -> str:
    """Return the description in an entity's stored text, without the line of aliases."""
    return text.partition("\n")[2] if text.startswith(_ALIASES) else text


def _line(aliases: Sequence[str]) -> str:
    return f"{_ALIASES}{_SEPARATOR.join(aliases)}\n" if aliases else ""


def parse_entity(row: object, max_chars: int) -> Entity:
    """Parse and validate an entity given as a JSON object. Raises InvalidInputError or TooLargeError with the field."""
    if not isinstance(row, Mapping):
        raise InvalidInputError("an entity has the wrong type", received=row, expected="an object")
    unknown = set(row) - _FIELDS
    if unknown:
        raise InvalidInputError(
            "unknown entity field", received=sorted(map(str, unknown)), expected=f"only {', '.join(sorted(_FIELDS))}"
        )
    title = _name(row.get("title"), "title")
    given = _given(row, "aliases", [])
    if not isinstance(given, list):
        raise InvalidInputError("aliases has the wrong type", received=given, expected="a list of strings")
    if len(given) > MAX_ALIASES:
        raise TooLargeError("too many aliases", received=len(given), expected=f"at most {MAX_ALIASES}")
    aliases = tuple(dict.fromkeys(name for name in (_name(value, "alias") for value in given) if name != title))
    kind, world = (check_text(_given(row, name, ""), name) for name in ("kind", "world"))
    metadata = check_metadata(_given(row, "metadata", {}))
    taken = [name for name in _RESERVED if name in metadata]
    if taken:
        raise InvalidInputError(
            "metadata holds a field of the entity's own", received=taken, expected="it beside metadata"
        )
    entity_id = check_text(row.get("id"), "id")
    description = check_text(_given(row, "description", ""), "description")
    if description.startswith(_ALIASES):
        raise InvalidInputError(
            "a description begins like the line of aliases", received=description, expected="a list of aliases"
        )
    lang = check_text(_given(row, "lang", ""), "lang")
    entity = Entity(entity_id, title, description, aliases, kind, world, lang, metadata)
    document = to_document(entity)
    fields = {"id": document.id, "title": title, "text": document.text, "lang": document.lang}
    parse_document({**fields, "metadata": dict(document.metadata)}, max_chars)
    return entity


def _given(row: Mapping[str, Any], name: str, default: Any) -> Any:
    value = row.get(name)
    return default if value is None else value


def _name(value: object, what: str) -> str:
    name = " ".join(check_text(value, what).split())
    if not 0 < len(name) <= MAX_NAME_CHARS:
        raise InvalidInputError(f"bad {what}", received=value, expected=f"1 to {MAX_NAME_CHARS} characters")
    return name


class KnowledgeBase:
    """Upserts, reads and removes entities. An acknowledged entity can be linked by the next request."""

    def __init__(self, documents: DocumentService, *, max_chars: int, max_bulk: int) -> None:
        self._documents = documents
        self._max_chars = max_chars
        self._max_bulk = max_bulk

    def bulk(self, collection: str, rows: Sequence[object], *, encode: bool = True) -> BulkResult:
        """Upsert entities given as JSON objects; return the outcome of each, in order.

        An invalid row, or a UserError in place of a row, becomes a rejected item. Raises InvalidInputError or
        TooLargeError only for the request as a whole.
        """
        if not isinstance(rows, list):
            raise InvalidInputError("entities has the wrong type", received=rows, expected="a list of objects")
        if len(rows) > self._max_bulk:
            raise TooLargeError("too many entities", received=len(rows), expected=f"at most {self._max_bulk}")
        documents: list[Document | BulkItem] = []
        for row in rows:
            try:
                if isinstance(row, UserError):
                    raise row
                documents.append(to_document(parse_entity(row, self._max_chars)))
            except UserError as error:
                documents.append(rejected(row.get("id") if isinstance(row, dict) else None, error))
        return self._documents.upsert(collection, documents, encode=encode)

    @staticmethod
    def check(spec: CollectionSpec) -> None:
        """Raise ConflictError if the collection is not a knowledge base."""
        if spec.kind != "entities":
            raise ConflictError("the collection holds documents", received=spec.name, expected="a knowledge base")

    def get(self, collection: str, entity_id: str) -> Entity:
        """Return an entity. Raises NotFoundError."""
        try:
            return from_document(self._documents.get(collection, entity_id))
        except NotFoundError as error:
            raise NotFoundError("no such entity", received=entity_id) from error

    def remove(self, collection: str, entity_ids: Sequence[str]) -> BulkResult:
        """Remove entities from every generation, so that a roll-back does not restore them.

        Raises ConflictError if the collection is not a knowledge base.
        """
        self.check(self._documents.spec(collection))
        return self._documents.delete(collection, entity_ids, everywhere=True)
