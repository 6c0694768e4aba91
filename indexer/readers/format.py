"""What a format is: how files of it are recognised, and how they are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from hyblink.app.core.errors import UserError

Opened = Callable[[IO[bytes]], None]
"""Is told the file that is being read, so that progress can be shown."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a file, or why it is none. `line` is where it begins, from 1; `number` counts rows, for resuming."""

    number: int
    line: int
    fields: dict[str, Any] | None = None
    error: UserError | None = None
    raw: object = b""
    """The row as it stands in the file, to show where it is not taken."""
    typed: bool = True
    """Whether numbers are numbers already; where they are texts, cells that plainly are one become one."""


@dataclass(frozen=True, slots=True)
class WholeFile:
    """A file that is one document. An empty title is replaced by the file's name."""

    title: str
    text: str
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Format:
    """One row of the registry. Exactly one of `rows` and `whole` reads files of the format."""

    name: str
    suffixes: tuple[str, ...]
    """Of file names, such as `.csv`; none where it is only taken when it is named."""
    about: str
    """What is read of it, for people."""
    rows: Callable[[Path, int, Opened], Iterator[Row]] | None = None
    """Every row of a file; takes the path, the longest row in bytes, and whom to tell the open file."""
    whole: Callable[[bytes], WholeFile] | None = None
    """The document that a file's bytes are. Raises InvalidInputError where they are none."""
    folder: Callable[[Path], Path | None] | None = None
    """The one file of a folder of this format; None where the folder is none."""
