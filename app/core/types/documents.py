"""Documents as users send them, passages as the store holds them, and the results of bulk requests."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Literal, NewType

DocId = NewType("DocId", str)

PassageRow = NewType("PassageRow", int)
"""The store's own 64-bit id of a passage. It is never reused: a changed document gets new rows."""

MetaScalar = str | int | float | bool

MetaValue = MetaScalar | dt.date | dt.datetime | list[str]

Metadata = Mapping[str, MetaValue]


def encoded_title(title: str, metadata: Metadata) -> str:
    """The title as encoders read it: "" if it is only the name of the document's file.

    So a renamed file needs no new vectors. The words of its name are searched all the same.

    >>> encoded_title("notes 2", {"file": "a/notes 2.txt"}), encoded_title("Travel", {"file": "a/notes 2.txt"})
    ('', 'Travel')
    """
    file = metadata.get("file")
    return "" if isinstance(file, str) and PurePosixPath(file).stem == title else title


def file_name_of(title: str, metadata: Metadata) -> str:
    """The name of a document's file without its suffix; "" if there is no file, or if the title is its name.

    >>> file_name_of("Travel", {"file": "a/notes 2.txt"}), file_name_of("notes 2", {"file": "a/notes 2.txt"})
    ('notes 2', '')
    """
    file = metadata.get("file")
    name = PurePosixPath(file).stem if isinstance(file, str) else ""
    return "" if name == title else name


def content_of(title: str, path: Sequence[str], name: str, text: str) -> str:
    """What BM25 and the bag of tokens index of a passage: title, path and name of the file on a line, and its text."""
    heading = heading_of(title, path)
    first = f"{heading} ({name})" if name and heading else heading or name
    return f"{first}\n{text}" if first else text


def heading_of(title: str, path: Sequence[str]) -> str:
    """The title of a document and the headings over a passage as one line. Headings like the title are left out.

    >>> heading_of("Guide", ("Guide", "Install", "Linux"))
    'Guide › Install › Linux'
    """
    return " › ".join([part for part in (title, *(step for step in path if step != title)) if part])


class SparseForm(StrEnum):
    """The two kinds of a passage's term weights.

    `BAG` is the passage's bag of tokens, which every passage has. `VDR` is the sparse vector of the VDR encoder.
    """

    BAG = "bag"
    VDR = "vdr"


class Tier(StrEnum):
    """How far a passage is indexed.

    `INSTANT`: searchable by BM25 and by its bag of tokens. `FULL`: encoded as well, so it has a dense vector and, if
    the generation has a VDR encoder, VDR weights.
    """

    INSTANT = "instant"
    FULL = "full"


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a document, from `start` (code points into its text) to the next section.

    `path` holds the headings above and over it, outermost first. `place` is where it is found in the original, such as
    `page 3`, `slide 2` or `sheet Prices`; empty if it has no place of its own.
    """

    start: int
    path: tuple[str, ...] = ()
    place: str = ""


@dataclass(frozen=True, slots=True)
class Document:
    """A document as the user sends it. `metadata` is flat: strings, numbers, booleans, dates, lists of strings.

    `sections` are in the order of the text, the first at 0. There are none if its structure is not known.
    """

    id: DocId
    text: str
    title: str = ""
    lang: str = ""
    metadata: Metadata = field(default_factory=dict)
    sections: tuple[Section, ...] = ()


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a text in code points: `start` inclusive, `end` exclusive."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Passage:
    """A chunk of a document, as the store holds it. `text` is `document.text[start:end]`, in code points.

    `ordinal` is the passage's position within its document, from 0. `path` and `place` are those of its section.
    """

    row: PassageRow
    doc_id: DocId
    ordinal: int
    start: int
    end: int
    title: str
    text: str
    tier: Tier
    path: tuple[str, ...] = ()
    place: str = ""
    file_name: str = ""
    """The name of the document's file, if it is indexed beside the title."""

    @property
    def id(self) -> str:
        """The passage's public id, `doc_id#ordinal`."""
        return f"{self.doc_id}#{self.ordinal}"

    @property
    def content(self) -> str:
        """The text that BM25 and the bag of tokens index; see `content_of`."""
        return content_of(self.title, self.path, self.file_name, self.text)

    @property
    def heading(self) -> str:
        """The document's title and the passage's path as one line; see `heading_of`."""
        return heading_of(self.title, self.path)


@dataclass(frozen=True, slots=True)
class BulkItem:
    """The outcome of one document of a bulk request. `code` and `message` say why it was rejected."""

    id: str
    status: Literal["created", "updated", "unchanged", "deleted", "not_found", "rejected"]
    passages: int = 0
    code: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class BulkResult:
    """The outcome of a bulk request, with one item per document in the request's order.

    `change` is the store's change counter after the request. Every snapshot at that counter or later includes it.
    """

    items: tuple[BulkItem, ...]
    change: int
    rows: tuple[int, ...] = ()
    """Rows of the passages written. They wait for the dense and VDR encoders."""

    @property
    def errors(self) -> bool:
        """Whether any document was rejected."""
        return any(item.status == "rejected" for item in self.items)


@dataclass(frozen=True, slots=True)
class StoreCounts:
    """The numbers of documents, passages and encoded passages in a store, and its change counter."""

    documents: int
    passages: int
    encoded: int
    change: int


@dataclass(frozen=True, slots=True)
class Reject:
    """A row of an input file that was rejected, and why. `raw` is the beginning of the row."""

    file: str
    line: int
    code: str
    message: str
    raw: str
