"""The tree of an HTML page: what is seen of it, and how much text its elements hold."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

_TAG = re.compile(r"<(/?)([A-Za-z][A-Za-z0-9]*)[^<>]*>")
_NOT_NESTED = frozenset(
    (
        "area", "base", "br", "col", "dd", "dt", "embed", "hr", "img", "input", "li", "link", "meta", "optgroup",
        "option", "p", "param", "source", "td", "tfoot", "th", "thead", "tr", "track", "wbr",
    )
)  # fmt: skip
"""Elements without an end, and those that end where the next one begins."""
_DEEPEST = 512
_UNSEEN = frozenset(
    (
        "script", "style", "noscript", "template", "head", "title", "svg", "iframe", "object", "embed", "audio",
        "video", "canvas", "datalist", "annotation", "annotation-xml", "rp", "map", "noframes", "frameset",
    )
)  # fmt: skip
_STYLE = re.compile(r"display\s*:\s*none|visibility\s*:\s*(?:hidden|collapse)", re.IGNORECASE)
_ANCHORS = frozenset(
    ("headerlink", "anchor", "anchor-link", "anchorjs-link", "hash-link", "header-anchor", "permalink")
)
_EMPTY = frozenset(
    (
        "area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track", "wbr",
    )
)  # fmt: skip
_CLOSED = re.compile(r"<([A-Za-z][A-Za-z0-9:]*)((?:\s[^<>]*)?)/>")
_CDATA = re.compile(r"<!\[CDATA\[(.*?)\]\]>", re.DOTALL)
_XHTML = re.compile(r"\s*<\?xml\b|\s*<html\b[^>]{0,300}\bxmlns\s*=|\s*<!DOCTYPE[^>]{0,200}XHTML", re.IGNORECASE)


@dataclass(slots=True, eq=False)
class Element:
    """An element with what it holds: elements and texts."""

    tag: str
    attributes: dict[str, str]
    children: list[Element | str] = field(default_factory=list)
    size: int = 0
    """The letters of the text in it that is seen."""
    linked: int = 0
    """Those of them in links."""
    links: int = 0
    unseen: bool = False

    @property
    def words(self) -> frozenset[str]:
        """The words of its class and id."""
        named = f"{self.attributes.get('class', '')} {self.attributes.get('id', '')}"
        return frozenset(re.split(r"[^a-z0-9]+", named.lower())) if named != " " else frozenset()

    @property
    def role(self) -> str:
        """Its ARIA role, or ""."""
        return self.attributes.get("role", "").strip().lower()

    def walk(self) -> Iterator[Element]:
        """Yield it and the elements in it that are seen, in the order of the page."""
        stack = [self]
        while stack:
            element = stack.pop()
            yield element
            stack += [child for child in reversed(element.children) if not isinstance(child, str) and not child.unseen]

    def text(self) -> str:
        """All text in it that is seen, white space folded."""
        parts: list[str] = []
        stack: list[Element | str] = [self]
        while stack:
            node = stack.pop()
            if isinstance(node, str):
                parts.append(node)
            elif not node.unseen:
                if node.tag in ("br", "p", "div", "li"):
                    parts.append(" ")
                stack += reversed(node.children)
        return " ".join("".join(parts).split())


def flat(source: str, deepest: int = _DEEPEST) -> str:
    """The page without elements that are nested deeper than browsers nest them, for which parsers need quadratic time.

    Their text stays.
    """
    depth = 0

    def kept(tag: re.Match[str]) -> str:
        nonlocal depth
        if tag[2].lower() in _NOT_NESTED:
            return tag[0]
        depth = max(0, depth - 1) if tag[1] else depth + 1
        return tag[0] if depth + bool(tag[1]) <= deepest else "\n"

    return _TAG.sub(kept, source)


def tree_of(source: str) -> Element:
    """The elements of a page, with their sizes. Elements that are not seen are marked."""
    from selectolax.lexbor import LexborHTMLParser

    parser = LexborHTMLParser(flat(_as_html(source)))
    top = Element("html", {})
    if parser.root is None:
        return top
    top.attributes = _attributes(parser.root)
    order = [top]
    node: Any = parser.root.child
    element = top
    above: list[tuple[Any, Element]] = []
    while True:
        while node is not None:
            if node.is_text_node:
                element.children.append(node.text_content or "")
            elif node.is_element_node:
                inner = Element(node.tag or "", _attributes(node))
                element.children.append(inner)
                order.append(inner)
                if (child := node.child) is not None:
                    above.append((node, element))
                    node, element = child, inner
                    continue
            node = node.next
        if not above:
            break
        node, element = above.pop()
        node = node.next
    _measure(order)
    return top


def _as_html(source: str) -> str:
    """XHTML as HTML, in which only some elements can be empty: `<a id="x"/>`, `<script src="x"/>`."""
    if not _XHTML.match(source[:2000]):
        return source
    source = _CDATA.sub(lambda part: part[1].replace("&", "&amp;").replace("<", "&lt;"), source)
    return _CLOSED.sub(lambda tag: tag[0] if tag[1].lower() in _EMPTY else f"<{tag[1]}{tag[2]}></{tag[1]}>", source)


def _attributes(node: Any) -> dict[str, str]:
    return {name: value or "" for name, value in node.attributes.items()}


def _measure(order: list[Element], aria: bool = True) -> None:
    """Mark what is not seen, and add up sizes from the innermost. `order` is that of the page.

    `aria`: what is hidden from screen readers counts as not seen.
    """
    for element in reversed(order):
        element.unseen = _is_unseen(element, aria)
        element.size = element.linked = element.links = 0
        for child in element.children:
            if isinstance(child, str):
                element.size += len("".join(child.split()))
            elif not child.unseen:
                element.size += child.size
                element.linked += child.linked
                element.links += child.links
        if element.tag == "a" and "href" in element.attributes:
            element.linked, element.links = element.size, 1
            element.unseen |= _is_anchor(element)
    # A page that was saved while a dialog was open hides all else from screen readers.
    if aria and any(element.unseen and element.size > order[0].size + 200 for element in order):
        _measure(order, aria=False)


def _is_anchor(link: Element) -> bool:
    """True for the sign beside a heading that links to it."""
    if "headerlink" in link.attributes.get("class", "").lower().split():
        return True
    if link.size > 1 or not link.attributes["href"].startswith("#"):
        return False
    return link.text() in ("¶", "#", "§", "🔗") or not _ANCHORS.isdisjoint(link.attributes.get("class", "").split())


def _is_unseen(element: Element, aria: bool) -> bool:
    tag, attributes = element.tag, element.attributes
    if tag in _UNSEEN:
        return True
    if tag in ("html", "body") or not attributes:  # some scripts show the page when it is complete
        return False
    if tag == "dialog" and "open" not in attributes:
        return True
    if "hidden" in attributes and attributes["hidden"].lower() != "until-found":
        return True
    if aria and attributes.get("aria-hidden", "").lower() == "true":
        return True
    return "style" in attributes and _STYLE.search(attributes["style"]) is not None
