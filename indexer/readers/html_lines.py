"""Writes the text of an HTML tree: blocks on lines of their own, rows of tables on one, headings as sections."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import IntEnum

from hyblink.app.core.types.documents import Section
from hyblink.indexer.readers.html_tree import Element

_SPACES = re.compile(r"[ \t\n\r\f\u00a0\u2000-\u200a\u202f\u205f]+")
_NO_WIDTH = dict.fromkeys([*range(9), *range(14, 32), 0x7F, 0xAD, 0x200B, 0x2060, 0xFEFF])
_HEADINGS = {"h1": 1, "h2": 2, "h3": 3, "h4": 4, "h5": 5, "h6": 6}
_BLOCKS = frozenset(
    (
        "address", "article", "aside", "blockquote", "body", "center", "dd", "details", "dialog", "dir", "div", "dl",
        "dt", "fieldset", "figcaption", "figure", "footer", "form", "header", "hgroup", "hr", "html", "legend", "li",
        "main", "menu", "nav", "ol", "optgroup", "option", "p", "pre", "search", "section", "select", "summary",
        "table", "tbody", "tfoot", "thead", "tr", "ul", "caption", "textarea", "listing", "xmp", "plaintext",
        "button", "rt",
    )
)  # fmt: skip
_AS_IT_IS = frozenset(("pre", "textarea", "listing", "xmp", "plaintext"))
_LAYOUT = frozenset((*_HEADINGS, "table", "ul", "ol", "dl", "pre", "blockquote", "form", "hr", "section", "article"))
"""A table with one of these in a cell arranges the page: its cells are no row of values."""
_NAMED = frozenset(("section", "article", "a", "span"))
"""Elements whose id names the heading in them or behind them."""


class Break(IntEnum):
    """What stands between two texts. The strongest asked for counts."""

    NONE = 0
    SPACE = 1
    SOFT = 2
    """A new line in a cell: a blank, or a new line if the table arranges the page."""
    CELL = 3
    LINE = 4
    PARAGRAPH = 5


_WRITTEN = ("", " ", " ", " | ", "\n", "\n\n")


@dataclass(slots=True)
class _Row:
    """A row of a table: where the breaks in it stand, and whether it arranges the page."""

    breaks: list[int] = field(default_factory=list)
    is_layout: bool = False


@dataclass(slots=True)
class _Heading:
    level: int
    start: int
    """The part with its first text."""
    place: str
    title: str = ""


class Writer:
    """Writes an element's text and keeps its headings. Use it once."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._break = Break.NONE
        self._rows: list[_Row | None] = []
        self._headings: list[_Heading] = []
        self._open: _Heading | None = None
        self._id = ""
        self._as_it_is = 0

    def write(self, top: Element) -> tuple[str, tuple[Section, ...]]:
        """The text of the element, and the sections by its headings; none if it has no headings."""
        stack: list[tuple[Element | str, bool]] = [(top, False)]
        while stack:
            node, is_end = stack.pop()
            if isinstance(node, str):
                self._text(node)
            elif is_end:
                self._end(node)
            elif not node.unseen:
                self._start(node)
                stack.append((node, True))
                stack += [(child, False) for child in reversed(node.children)]
            elif node.tag == "a" and self._open is not None and node.attributes.get("href", "").startswith("#"):
                self._open.place = self._open.place or node.attributes["href"][1:]  # the sign that links to it
        return "".join(self._parts), self._sections()

    def _ask(self, wanted: Break) -> None:
        if wanted >= Break.LINE and self._rows and self._rows[-1] is not None:
            wanted = Break.SOFT
        self._break = max(self._break, wanted)

    def _start(self, element: Element) -> None:
        tag, attributes = element.tag, element.attributes
        if tag in _LAYOUT and self._rows and (row := self._rows[-1]) is not None:
            row.is_layout = True
        if attributes and (name := attributes.get("id") or (tag == "a" and attributes.get("name"))):
            if self._open is not None:
                self._open.place = self._open.place or name
            elif tag in _NAMED or (tag == "div" and "section" in element.words):
                self._id = name
        if tag == "table":
            self._ask(Break.LINE)
            self._rows.append(None)
        elif tag == "tr":
            self._break = max(self._break, Break.LINE)
            self._rows.append(_Row())
        elif tag in ("td", "th"):
            self._ask(Break.CELL if self._rows and self._rows[-1] is not None else Break.LINE)
        elif tag == "br":
            self._line_break()
        elif tag == "img":
            self._text(self._alternative(attributes))
        elif tag in _HEADINGS:
            self._ask(Break.PARAGRAPH)
            place = attributes.get("id") or self._id
            self._open = _Heading(_HEADINGS[tag], len(self._parts), place)
        elif tag in _BLOCKS:
            self._ask(Break.LINE)
        self._as_it_is += tag in _AS_IT_IS

    def _end(self, element: Element) -> None:
        tag = element.tag
        self._as_it_is -= tag in _AS_IT_IS
        if tag == "table":
            while self._rows and self._rows.pop() is not None:
                pass
            self._ask(Break.LINE)
        elif tag == "tr" and self._rows and self._rows[-1] is not None:
            row = self._rows.pop()
            if row is not None and row.is_layout:
                for at in row.breaks:
                    self._parts[at] = "\n"
            self._break = Break.NONE if self._break == Break.CELL else self._break
            self._break = max(self._break, Break.LINE)
        elif tag in ("td", "th"):
            self._ask(Break.CELL if self._rows and self._rows[-1] is not None else Break.LINE)
        elif tag in _HEADINGS:
            self._close_heading()
            self._ask(Break.LINE)
        elif tag in _BLOCKS:
            self._ask(Break.LINE)

    def _close_heading(self) -> None:
        heading, self._open = self._open, None
        if heading is None:
            return
        heading.title = " ".join("".join(self._parts[heading.start :]).split())
        if heading.title:
            self._headings.append(heading)
            self._id = ""

    def _line_break(self) -> None:
        if self._as_it_is and self._parts:
            self._parts.append("\n")
        else:
            self._ask(Break.LINE)

    @staticmethod
    def _alternative(attributes: dict[str, str]) -> str:
        """What an image shows, if it is told in more than a word."""
        told = " ".join(attributes.get("alt", "").split())
        return f" {told} " if " " in told and "\\" not in told else ""

    def _text(self, text: str) -> None:
        if not text.isascii():
            text = text.translate(_NO_WIDTH)
        ends = False
        if self._as_it_is:
            text = text.replace("\r\n", "\n")
        else:
            text = _SPACES.sub(" ", text)
            ends = text.endswith(" ")
            if text.startswith(" "):
                self._ask(Break.SPACE)
            text = text.strip(" ")
        if not text:
            return
        if self._parts and self._break:
            row = self._rows[-1] if self._rows else None
            if row is not None and self._break in (Break.SOFT, Break.CELL):
                row.breaks.append(len(self._parts))
            self._parts.append(_WRITTEN[self._break])
            if self._open is not None and self._open.start == len(self._parts) - 1:
                self._open.start += 1
        self._break = Break.NONE
        self._parts.append(text)
        if ends:
            self._ask(Break.SPACE)
        if self._open is None:
            self._id = ""

    def _sections(self) -> tuple[Section, ...]:
        if not self._headings:
            return ()
        found: list[Section] = []
        path: list[tuple[int, str]] = []
        length = at = 0
        for heading in self._headings:
            length += sum(map(len, self._parts[at : heading.start]))
            at = heading.start
            if length and not found:
                found.append(Section(0))
            path = [(level, title) for level, title in path if level < heading.level]
            path.append((heading.level, heading.title))
            place = f"#{heading.place}" if heading.place else ""
            found.append(Section(length, tuple(title for _, title in path), place))
        return tuple(found)
