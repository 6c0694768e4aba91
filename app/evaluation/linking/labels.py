"""Resolve the labels of data sets to entities of a knowledge base, by id, Wikipedia or Wikidata number, or title.

Each format names entities in its own way: BLINK by page or line numbers, AIDA by page numbers or YAGO names, NIF by
URLs, ELQ by Wikidata items. A label that cannot be resolved is not in the knowledge base, so its mention is NIL.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from urllib.parse import unquote

from hyblink.app.core.errors import InvalidInputError
from hyblink.app.core.ports.store import StoreReader
from hyblink.app.evaluation.linking.mentions import JudgedMention
from hyblink.app.linking.service import LinkService

_BATCH = 2000
_ADDRESS = re.compile(
    r"(?:https?://(?:[\w.-]+\.)?(?:wikipedia\.org/wiki|dbpedia\.org/resource|wikidata\.org/(?:entity|wiki))/"
    r"|urn:hyblink:[^:]+:)(?P<name>.+)"
)
_PAGE = re.compile(r"https?://.*[?&]curid=(?P<page>\d+)\b.*")
_ESCAPED = re.compile(r"\\u([0-9a-fA-F]{4})")


Label = tuple[str, str, str]
"""(Label as in the file, title of the entity, world). Title and world may be empty."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """Mentions with entity ids of the knowledge base, and the labels that it does not have (these mentions are NIL)."""

    rows: list[JudgedMention]
    unknown: tuple[str, ...]


class Labels:
    """Resolves labels to entity ids of one snapshot of a knowledge base."""

    def __init__(self, linker: LinkService, kb: str, reader: StoreReader) -> None:
        self._known = linker.known(kb)
        self._meanings = linker.meanings(kb)
        self._reader = reader
        self._numbered: dict[str, str] | None = None

    def resolve(self, rows: Sequence[JudgedMention]) -> Resolved:
        """Replace the mentions' labels by entity ids. Raises InvalidInputError if no label can be resolved."""
        ids = self.ids((row.entity_id, row.title, row.world) for row in rows)
        made = [replace(row, entity_id=ids[row.entity_id, row.title, row.world]) for row in rows]
        unknown = [row.entity_id for row, own in zip(rows, made, strict=True) if row.entity_id and not own.entity_id]
        return Resolved(made, tuple(unknown))

    def ids(self, labels: Iterable[Label]) -> dict[Label, str]:
        """Return the entity id of each label, "" if none. Raises InvalidInputError if no label can be resolved."""
        every = set(labels)
        there = self._known({label for label, _, _ in every if label})
        ids = {mention: self._one(*mention, there=there) if mention[0] else "" for mention in every}
        given = sorted(label for label, _, _ in every if label)
        if given and not any(ids.values()):
            shown = next(iter(self._reader.document_ids()), [])[:3]
            raise InvalidInputError(
                "no label is an entity of the knowledge base", received=given[:3],
                expected=f"ids such as {', '.join(map(repr, shown)) or '(it is empty)'}, page numbers, titles",
            )  # fmt: skip
        return ids

    def _one(self, label: str, title: str, world: str, *, there: set[str]) -> str:
        if label in there and (not title or self._may_be(label, title, world)):
            return label
        named = self._titled(title, world) if title else ""
        return named or (label if label in there else self._elsewhere(label, world))

    def _may_be(self, entity: str, title: str, world: str) -> bool:
        """Whether the entity has this title (and world, if given): a line number may equal another entity's id."""
        return self._is_called(entity, title) and (not world or self._world(entity) in {"", world})

    def _elsewhere(self, label: str, world: str) -> str:
        address = _ADDRESS.fullmatch(label)
        page = _PAGE.fullmatch(label)
        name = unquote(address["name"]) if address else page["page"] if page else label
        if name != label and self._known({name}):
            return name
        if name.isdigit() or re.fullmatch(r"Q\d+", name):
            return self._by_number().get(name, "")
        return self._titled(_ESCAPED.sub(lambda found: chr(int(found[1], 16)), name).replace("_", " "), world)

    def _by_number(self) -> dict[str, str]:
        """Entity ids by the `page` and `wikidata` numbers in their metadata, read on first use."""
        if self._numbered is None:
            self._numbered = {}
            rows = self._reader.live_rows()
            for at in range(0, len(rows), _BATCH):
                keys = self._reader.document_keys(rows[at : at + _BATCH])
                for doc_id, own in zip(self._reader.doc_ids(keys), self._reader.metadata(keys), strict=True):
                    for name in ("page", "wikidata"):
                        if name in own:
                            self._numbered[str(own[name])] = doc_id
        return self._numbered

    def _titled(self, title: str, world: str) -> str:
        """The id of the only entity with this title, or of the only one in this world; "" otherwise."""
        found = [meaning for meaning in self._meanings(title) if self._is_called(meaning, title)]
        if len(found) > 1:
            found = [result for result in found if self._world(result) == world]
        return found[0] if len(found) == 1 else ""

    def _is_called(self, entity: str, title: str) -> bool:
        document = self._reader.get_document(entity)
        return document is not None and document.title == " ".join(title.split())

    def _world(self, entity: str) -> str:
        document = self._reader.get_document(entity)
        return "" if document is None else str(document.metadata.get("world", ""))
