"""The description of a file format: how its files are recognised and read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from hyblink.app.core.errors import UserError
from hyblink.app.core.types.documents import Section
from hyblink.indexer.readers.fields import Fields

Opened = Callable[[IO[bytes]], None]
"""A callback that receives the open file, so that the caller can show progress from its position."""


def _nothing(_: object) -> None: ...


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a file: its `fields`, or the `error` if it could not be read.

    `line` is the place shown in messages, `number` the position used to resume. Both count from 1.
    """

    number: int
    line: int
    fields: dict[str, Any] | None = None
    error: UserError | None = None
    raw: object = b""
    """The row as it is in the file, to show in the report of a rejected row."""
    fields_are: Fields | None = None
    """Which fields are the id, the title and the text, if all rows have the same; None: by their names."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to read the rows of a file.

    `opened` gets the open file, `noted` what was guessed or read otherwise than it stands there. `encoding` None finds
    it out. `header` False: the first row of a table is data. `columns` maps id, title or text to a field's name.
    """

    max_row_bytes: int = 16 * 2**20
    opened: Opened = _nothing
    noted: Callable[[str], None] = _nothing
    encoding: str | None = None
    header: bool = True
    columns: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WholeFile:
    """The content of a file that is one document. An empty title is replaced by the file name.

    `sections` are in the order of the text, the first at 0; there are none if the file has no structure.
    """

    title: str
    text: str
    metadata: dict[str, Any] = field(default_factory=dict)
    sections: tuple[Section, ...] = ()


@dataclass(frozen=True, slots=True)
class Member:
    """A file of an archive: its path inside, and where it was written, or why it was not."""

    name: str
    file: str = ""
    error: str = ""


Unpack = Callable[[Path, Path], Iterator[Member]]
"""(the file, the folder to write to) → the files in it, in their order."""


@dataclass(frozen=True, slots=True)
class Format:
    """A file format in the registry.

    Its files are tables of `rows`, or one document (`whole`), or they hold other files (`unpack`); a mail is a document
    and holds its attachments.
    """

    name: str
    suffixes: tuple[str, ...]
    """File name suffixes such as `.csv`. Empty if the format is used only when the caller names it."""
    about: str
    """A description for users."""
    rows: Callable[[Path, Options], Iterator[Row]] | None = None
    """Yields every row of a file."""
    whole: Callable[[bytes], WholeFile] | None = None
    """Reads the bytes of a file as one document. Raises InvalidInputError if it cannot."""
    unpack: Unpack | None = None
    """Writes the files that a file holds to a folder, and yields them."""
    names: tuple[str, ...] = ()
    """Whole file names in lower case, for files without a suffix such as `Makefile`."""
    kept: str = "text"
    """What of a file is kept beside its text, for people: title, sections, places, metadata."""
    variants: Mapping[str, Callable[[bytes], WholeFile]] = field(default_factory=dict)
    """Other ways to read a file as one document, by the name of the option that asks for it."""
    needs: str = ""
    """What is said of its files unless a variant is asked for; empty if they are read without."""
    unpack_rows: Unpack | None = None
    """Writes the tables of a file as CSV, where each row shall be a document."""
    folder: Callable[[Path], Path | None] | None = None
    """For formats of whole folders: the data file of a folder, or None if the folder is not of this format."""
