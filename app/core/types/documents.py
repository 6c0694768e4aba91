"""Documents and their passages, as people send them and as the store holds them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, NewType

DocId = NewType("DocId", str)

PassageRow = NewType("PassageRow", int)
"""The store's own 64-bit id of a passage. Never reused: a changed document gets new rows."""

MetaScalar = str | int | float | bool

MetaValue = MetaScalar | dt.date | dt.datetime | list[str]

Metadata = Mapping[str, MetaValue]


class SparseForm(StrEnum):
    """A passage's term weights: its bag of tokens, which every passage has, or what the VDR encoder made of it."""

    BAG = "bag"
    VDR = "vdr"


class Tier(StrEnum):
    """How far a passage has come: searchable by words and bag of tokens, or by everything."""

    INSTANT = "instant"
    FULL = "full"


@dataclass(frozen=True, slots=True)
class Document:
    """What a user gives us. `metadata` is flat: strings, numbers, booleans, dates, lists of strings."""

    id: DocId
    text: str
    title: str = ""
    lang: str = ""
    metadata: Metadata = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Span:
    """A window of a text by code points: `start` inclusive, `end` exclusive."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Passage:
    """A window of a document, as the store holds it. `text` is `document.text[start:end]`."""

    row: PassageRow
    doc_id: DocId
    ordinal: int
    start: int
    end: int
    title: str
    text: str
    tier: Tier

    @property
    def id(self) -> str:
        """The passage's public id, `doc_id#ordinal`."""
        return f"{self.doc_id}#{self.ordinal}"

    @property
    def content(self) -> str:
        """What BM25 and the bag of tokens see: title, then text."""
        return f"{self.title}\n{self.text}" if self.title else self.text


@dataclass(frozen=True, slots=True)
class BulkItem:
    """The fate of one document of a bulk request, in the request's order."""

    id: str
    status: Literal["created", "updated", "unchanged", "deleted", "not_found", "rejected"]
    passages: int = 0
    code: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class BulkResult:
    """A bulk request's outcome. `change` is the store's counter after it: the next search sees it all."""

    items: tuple[BulkItem, ...]
    change: int
    rows: tuple[int, ...] = ()
    """Rows of the passages written, for the encode queue."""

    @property
    def errors(self) -> bool:
        return any(item.status == "rejected" for item in self.items)


@dataclass(frozen=True, slots=True)
class StoreCounts:
    """What a store holds."""

    documents: int
    passages: int
    encoded: int
    change: int


@dataclass(frozen=True, slots=True)
class Reject:
    """A row that was not taken, and why. `raw` is its beginning."""

    file: str
    line: int
    code: str
    message: str
    raw: str
