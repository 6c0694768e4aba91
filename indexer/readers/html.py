"""Reads the visible text of HTML pages."""

from __future__ import annotations

import re

from hyblink.indexer.readers.format import WholeFile
from hyblink.indexer.readers.rows import decode
from hyblink.indexer.readers.tidy import tidy

_BLOCKS = "p,div,section,article,li,tr,h1,h2,h3,h4,h5,h6,pre,blockquote,dt,dd,br,td,th"

_TAG = re.compile(r"<(/?)([A-Za-z][A-Za-z0-9]*)[^<>]*>")
_NOT_NESTED = frozenset(
    (
        "area", "base", "br", "col", "dd", "dt", "embed", "hr", "img", "input", "li", "link", "meta", "optgroup",
        "option", "p", "param", "source", "td", "tfoot", "th", "thead", "tr", "track", "wbr",
    )
)  # fmt: skip
"""Elements without an end, and those that end where the next one begins."""
_DEEPEST = 512


def read(data: bytes) -> WholeFile:
    """Title and visible text of an HTML file. Raises InvalidInputError if it is not UTF-8."""
    return WholeFile(*html_text(decode(data)))


def _flat(source: str) -> str:
    """The page without elements that are nested deeper than browsers nest them, for which parsers need quadratic time.

    Their text stays.
    """
    depth = 0

    def kept(tag: re.Match[str]) -> str:
        nonlocal depth
        if tag[2].lower() in _NOT_NESTED:
            return tag[0]
        depth = max(0, depth - 1) if tag[1] else depth + 1
        return tag[0] if depth + bool(tag[1]) <= _DEEPEST else "\n"

    return _TAG.sub(kept, source)


def html_text(source: str) -> tuple[str, str]:
    """(title, text) of an HTML page, without scripts, styles and hidden elements.

    >>> html_text("<title>T</title><script>x</script><p>One</p><p>Two &amp; three</p>")
    ('T', 'One\\nTwo & three')
    """
    from selectolax.lexbor import LexborHTMLParser

    tree = LexborHTMLParser(_flat(source))
    title = tree.css_first("title")
    name = title.text(strip=True) if title else ""
    for node in tree.css("script,style,noscript,template,title,[hidden]"):
        node.decompose()
    for node in tree.css(_BLOCKS):
        node.insert_after("\n")
    body = tree.body or tree.root
    text = body.text(separator="") if body else ""
    return name, re.sub(r"\n{3,}", "\n\n", tidy(re.sub(r"[ \t]+", " ", text)))
