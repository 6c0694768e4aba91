"""The description of a file format: how its files are recognised and read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from hyblink.app.core.errors import UserError

Opened = Callable[[IO[bytes]], None]
"""A callback that receives the open file, so that the caller can show progress from its position."""


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
    typed: bool = True
    """True if the format has typed values (JSON). If False (CSV), cells that are plainly numbers are converted."""


@dataclass(frozen=True, slots=True)
class WholeFile:
    """The content of a file that is one document. An empty title is replaced by the file name."""

    title: str
    text: str
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Format:
    """A file format in the registry. Exactly one of `rows` and `whole` is set and reads files of the format."""

    name: str
    suffixes: tuple[str, ...]
    """File name suffixes such as `.csv`. Empty if the format is used only when the caller names it."""
    about: str
    """A description for users."""
    rows: Callable[[Path, int, Opened], Iterator[Row]] | None = None
    """Yields every row of a file. Takes the path, the maximum size of a row in bytes, and a callback for the file."""
    whole: Callable[[bytes], WholeFile] | None = None
    """Reads the bytes of a file as one document. Raises InvalidInputError if it cannot."""
    folder: Callable[[Path], Path | None] | None = None
    """For formats of whole folders: the data file of a folder, or None if the folder is not of this format."""
