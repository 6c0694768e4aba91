"""Builds the text of a document from blocks, and its sections with their offsets."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hyblink.app.core.errors import InvalidInputError, UserError
from hyblink.app.core.types.documents import Section
from hyblink.indexer.readers.format import WholeFile

# Control characters say nothing, and a soft hyphen would split a word for the search.
_DROPPED = dict.fromkeys([*range(9), *range(14, 32), 127, 0xAD, 0x200B, 0xFEFF])
_CHANGED = _DROPPED | {0xA0: " ", 0x0B: "\n", 0x0C: "\n", 0x85: "\n", 0x2028: "\n", 0x2029: "\n"}
_MANY_LINES = re.compile(r"\n{3,}")
_UNTITLED = re.compile(
    r"(?:untitled|unbenannt|sans nom|title|document|presentation|powerpoint[ -]pr\w+|workbook|book|slide|folie)"
    r"[ _-]?\d{0,4}(?:\.\w{3,4})?",
    re.IGNORECASE,
)
_PROGRAM = re.compile(r"Microsoft (?:Office )?(?:Power)?(?:Word|Point|Excel) ?- ?", re.IGNORECASE)
_LONGEST_HEADING = 300


def clean(text: str) -> str:
    """The text as it stands in a document: line ends trimmed, one blank line at most, no control characters.

    >>> clean("a  \\r\\n\\n\\n\\nb\\x00\\n")
    'a\\n\\nb'
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n").translate(_CHANGED)
    if not text.isascii():
        # Halves of a pair are joined, lone ones replaced: they cannot be written as UTF-8.
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return _MANY_LINES.sub("\n\n", "\n".join(line.rstrip() for line in text.split("\n"))).strip("\n")


def flat(text: str) -> str:
    """The text as one line, every run of white space a blank."""
    return " ".join(clean(text).split())


def joined(cells: Sequence[str]) -> str:
    """The cells of a table row as a line, without the empty ones at its end. Empty if all are."""
    flats = [flat(cell) for cell in cells]
    while flats and not flats[-1]:
        flats.pop()
    return " | ".join(flats)


def given_title(*candidates: str) -> str:
    """The first candidate that says something: names that programs give by themselves are passed over."""
    for candidate in candidates:
        title = flat(candidate)
        if title and not _UNTITLED.fullmatch(title) and not _PROGRAM.match(title):
            return title
    return ""


@contextmanager
def reading(kind: str) -> Iterator[None]:
    """Turn what libraries raise on a broken file into InvalidInputError. `kind` names the format."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:  # libraries may raise anything on a broken file
        said = f"{type(error).__name__}: {error}".encode("utf-8", "replace").decode()[:200]
        raise InvalidInputError(f"the {kind} file cannot be read: {said}", expected=f"a whole {kind} file") from error


class Blocks:
    """Collects the blocks of a document, with one blank line between them."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._length = 0
        self._sections: list[Section] = []
        self._headings: list[tuple[int, str]] = []
        self._place = ""
        self._begins = False

    @property
    def headings(self) -> list[tuple[int, str]]:
        """The headings in force here with their levels, outermost first."""
        return list(self._headings)

    def place(self, name: str, *, keep_headings: bool = False) -> None:
        """Begin a section at the next block. It is found at `name`, and under no heading unless they are kept."""
        if not keep_headings:
            self._headings.clear()
        self._place = name
        self._begins = True

    def heading(self, level: int, text: str) -> None:
        """Add a heading and begin a section under it. Headings of its level and below end. Empty ones are left out."""
        text = flat(text)
        if not text:
            return
        while self._headings and self._headings[-1][0] >= level:
            self._headings.pop()
        self._headings.append((level, text[:_LONGEST_HEADING]))
        self._begins = True
        self.add(text)

    def add(self, text: str) -> None:
        """Add a block, whose line breaks and indents are kept. Empty ones are left out."""
        text = clean(text)
        if not self._parts:
            text = text.lstrip()
        if not text:
            return
        start = self._length + 2 if self._parts else 0
        if self._begins:
            self._sections.append(Section(start, tuple(heading for _, heading in self._headings), self._place))
            self._begins = False
        self._parts.append(text)
        self._length = start + len(text)

    def done(self, title: str = "", metadata: dict[str, Any] | None = None) -> WholeFile:
        """The document. Metadata that is None or empty is left out."""
        sections = self._sections
        if sections and sections[0].start:
            sections = [Section(0), *sections]
        kept = {key: value for key, value in (metadata or {}).items() if value not in (None, "", [])}
        return WholeFile(flat(title), "\n\n".join(self._parts), kept, tuple(sections))
