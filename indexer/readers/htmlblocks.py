"""Adds the visible text of an HTML page to blocks, with its headings. For pages within books and mails."""

from __future__ import annotations

import html
import re
from typing import Any

from hyblink.indexer.readers.blocks import Blocks, flat, joined
from hyblink.indexer.readers.html_tree import flat as without_depths
from hyblink.indexer.readers.packed import local

_HIDDEN = frozenset(("script", "style", "noscript", "template", "head", "svg", "math", "object", "select", "iframe"))
_BLOCKS = frozenset(
    (
        "p", "div", "section", "article", "aside", "header", "footer", "main", "nav", "figure", "figcaption", "ul",
        "ol", "dl", "li", "dt", "dd", "blockquote", "address", "body", "html", "form", "fieldset", "details", "summary",
        "center", "caption", "hr", "td", "th", "tr", "tbody", "thead", "tfoot",
    )
)  # fmt: skip
_NAMED = re.compile(r"&([A-Za-z][A-Za-z0-9]{1,31});")
_OF_XML = frozenset(("amp", "lt", "gt", "quot", "apos"))
_EMPTY = re.compile(r"<(title|script|style|a|div|span|p|i|b|em|td|iframe|textarea)((?:\s[^<>]*)?)/>", re.IGNORECASE)
_DECLARED = re.compile(r"^\s*<\?xml[^>]{0,200}\?>")
_DEEPEST = 400
"""At more the parser would stop."""


def page(source: str) -> Any:
    """The root element (lxml) of an XHTML or HTML page, or None if there is nothing in it. Nothing is fetched."""
    from lxml import etree  # type: ignore[import-untyped]

    source = _DECLARED.sub("", source.lstrip("\ufeff"))
    # Written out, since they are declared in a file elsewhere that is not fetched.
    named = _NAMED.sub(lambda name: name[0] if name[1] in _OF_XML else html.unescape(name[0]), source)
    strict = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, remove_comments=True)
    try:
        return etree.fromstring(named.encode("utf-8", "replace"), strict)
    except etree.XMLSyntaxError:
        pass
    # In HTML an element cannot end itself: a title that tries to would hide the whole page.
    lenient = etree.HTMLParser(no_network=True, remove_comments=True, encoding="utf-8", huge_tree=True)
    try:
        return etree.fromstring(
            without_depths(_EMPTY.sub(r"<\1\2></\1>", source), _DEEPEST).encode("utf-8", "replace"), lenient
        )
    except (etree.XMLSyntaxError, etree.ParserError):
        return None


def page_title(root: Any) -> str:
    """The title that the head of a page states, or an empty string."""
    for element in root.iter():
        if local(element) == "title":
            return flat("".join(element.itertext()))
        if local(element) == "body":
            break
    return ""


def add_page(blocks: Blocks, root: Any) -> None:
    """Add the visible text of a page: headings as sections, list items and table rows as lines."""
    _Walker(blocks).walk(root)


class _Walker:
    """Walks through a page without recursion: pages of mails may be nested to any depth."""

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks
        self._said: list[str] = []
        self._lines: list[str] = []
        """The items of the list, or the rows of the table, so far."""
        self._cells: list[str] | None = None

    def walk(self, root: Any) -> None:
        stack: list[tuple[Any, bool]] = [(root, True)]
        kept = 0
        while stack:
            element, begins = stack.pop()
            name = local(element).lower()
            if not begins:
                self._end(name)
                kept -= name == "pre"
                self._text(element.tail, kept)
                continue
            if name in _HIDDEN or element.get("hidden") is not None or not name:
                self._text(element.tail, kept)
                continue
            if name in ("h1", "h2", "h3", "h4", "h5", "h6"):
                self._flush_lines()
                self._blocks.heading(int(name[1]), " ".join(element.itertext()) if len(element) else element.text or "")
                self._text(element.tail, kept)
                continue
            kept += name == "pre"
            self._begin(name, element)
            self._text(element.text, kept)
            stack.append((element, False))
            stack.extend((child, True) for child in reversed(element))
        self._flush_lines()

    def _text(self, text: str | None, kept: int) -> None:
        if text:
            self._said.append(text if kept else re.sub(r"\s+", " ", text))

    def _begin(self, name: str, element: Any) -> None:
        if name == "br":
            self._said.append("\n")
        elif name == "img":
            self._said.append(" " + (element.get("alt") or "") + " ")
        elif name in ("td", "th"):
            if self._cells is None:
                self._flush()
                self._cells = []
            self._said.clear()
        elif name == "tr":
            # A table in a cell: its rows are lines of their own.
            self._row()
            self._flush()
        elif name in ("table", "ul", "ol", "dl", "pre"):
            self._line("")
            if self._cells is None and name in ("table", "pre"):
                self._flush_lines()
        elif name in ("li", "dt", "dd"):
            self._line("")
        elif name in _BLOCKS and self._cells is None and not self._lines:
            self._flush()
        elif name in _BLOCKS:
            self._said.append(" ")

    def _end(self, name: str) -> None:
        if name in ("td", "th"):
            if self._cells is not None:
                self._cells.append("".join(self._said))
            self._said.clear()
        elif name in ("tr", "table"):
            self._row()
            if name == "table":
                self._flush_lines()
        elif name == "li":
            self._line("- ")
        elif name in ("dt", "dd"):
            self._line("")
        elif name in ("ul", "ol", "dl", "pre") and self._cells is None:
            self._flush_lines()
        elif name in _BLOCKS:
            if self._cells is None and not self._lines:
                self._flush()
            else:
                self._said.append(" ")

    def _row(self) -> None:
        if self._cells is not None:
            cells, self._cells = self._cells, None
            line = joined(cells)
            if line:
                self._lines.append(line)

    def _line(self, sign: str) -> None:
        """End the line of a list. In a table's cell there are no lines."""
        if self._cells is not None:
            self._said.append(" ")
            return
        said = _trimmed(self._said)
        self._said.clear()
        if said:
            self._lines.append(sign + said)

    def _flush(self) -> None:
        """End a paragraph."""
        said = _trimmed(self._said)
        self._said.clear()
        if said:
            self._blocks.add(said)

    def _flush_lines(self) -> None:
        lines, self._lines = self._lines, []
        self._blocks.add("\n".join(lines))
        self._flush()


def _trimmed(said: list[str]) -> str:
    return "\n".join(re.sub(r"(?<=\S)[ \t]{2,}", " ", line).rstrip() for line in "".join(said).split("\n")).strip()
