"""Reads the visible text of HTML pages."""

from __future__ import annotations

import re
from typing import Any

from hyblink.app.core.types.documents import Section
from hyblink.indexer.readers.format import WholeFile
from hyblink.indexer.readers.html_charset import decoded
from hyblink.indexer.readers.html_content import without_boilerplate
from hyblink.indexer.readers.html_lines import Writer
from hyblink.indexer.readers.html_tree import Element, tree_of

_LONGEST = 2000
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}(?=T|\s|$)")
_LANGUAGE = re.compile(r"[A-Za-z]{2,8}(?:[-_][A-Za-z0-9]{1,8})*")
_BLANK_LINES = re.compile(r"\n\n\n+")


def read(data: bytes) -> WholeFile:
    """Title, text, headings and metadata of an HTML page, without navigation, banners and the like.

    Takes any encoding and any bytes. A page of which next to nothing would be left is kept as a whole.
    """
    return _read(data, everything=False)


def read_everything(data: bytes) -> WholeFile:
    """As `read`, with all text that is visible."""
    return _read(data, everything=True)


def html_text(source: str) -> tuple[str, str]:
    """(title, text) of an HTML page, without scripts, styles and hidden elements.

    >>> html_text("<title>T</title><script>x</script><p>One</p><p>Two &amp; three</p>")
    ('T', 'One\\nTwo & three')
    """
    top = tree_of(source)
    return _about(top).get("title", ""), _tidied(*Writer().write(top))[0]


def _read(data: bytes, everything: bool) -> WholeFile:
    top = tree_of(decoded(data))
    about = _about(top)
    first = "" if everything else _only_heading(top)
    content = top if everything else without_boilerplate(top)[0]
    text, sections = _tidied(*Writer().write(content))
    title = _only_heading(content) or about.pop("title", "") or about.pop("og:title", "") or first
    metadata = {name: value for name, value in about.items() if name not in ("title", "og:title")}
    return WholeFile(title, text, metadata, sections)


def _only_heading(content: Element) -> str:
    """The text of the first-level heading, if there is one only."""
    found = [text for element in content.walk() if element.tag == "h1" and (text := element.text())]
    return found[0][:_LONGEST] if len(found) == 1 else ""


def _about(top: Element) -> dict[str, Any]:
    """What the head of the page says: the title and the metadata that are given."""
    told: dict[str, str] = {}
    title = ""
    stack: list[Element] = [top]
    while stack:
        element = stack.pop()
        attributes = element.attributes
        if element.tag == "title" and not title:
            title = " ".join("".join(part for part in element.children if isinstance(part, str)).split())
        elif element.tag == "meta":
            name = (attributes.get("name") or attributes.get("property") or attributes.get("itemprop") or "").lower()
            if content := " ".join(attributes.get("content", "").split()):
                told.setdefault(name, content[:_LONGEST])
        elif element.tag == "link" and "canonical" in attributes.get("rel", "").lower().split():
            told.setdefault("canonical", attributes.get("href", "").strip())
        if element.tag != "svg":  # its title is that of a picture
            stack += [child for child in reversed(element.children) if not isinstance(child, str)]
    language = top.attributes.get("lang") or top.attributes.get("xml:lang") or ""
    published = told.get("article:published_time") or told.get("datepublished") or told.get("dc.date.issued") or ""
    author = told.get("author") or told.get("article:author") or told.get("dc.creator") or ""
    url = told.get("canonical") or told.get("og:url") or ""
    day = _DAY.match(published)
    found = {
        "title": title[:_LONGEST],
        "og:title": told.get("og:title", ""),
        "description": told.get("description") or told.get("og:description") or "",
        "author": "" if author.startswith(("http:", "https:")) else author,
        "lang": language if _LANGUAGE.fullmatch(language) else "",
        "published": day[0] if day else "",
        "url": url if url.startswith(("http://", "https://")) else "",
    }
    return {name: value for name, value in found.items() if value}


def _tidied(text: str, sections: tuple[Section, ...]) -> tuple[str, tuple[Section, ...]]:
    """The text without blank ends of lines and rows of empty lines, with the sections moved to where they are now."""
    # Each section is tidied alone, so that their offsets are known.
    starts = [section.start for section in sections] or [0]
    parts: list[str] = []
    kept: list[Section] = []
    length = 0
    for at, start in enumerate(starts):
        end = starts[at + 1] if at + 1 < len(starts) else len(text)
        part = "\n".join(line.rstrip() for line in text[start:end].split("\n")).strip("\n")
        part = _BLANK_LINES.sub("\n\n", part)
        if not parts:
            part = part.lstrip()
        if not part:
            continue
        separator = "\n\n" if parts else ""
        if sections:
            section = sections[at]
            kept.append(Section(length + len(separator), section.path, section.place))
        parts += (separator, part)
        length += len(separator) + len(part)
    return "".join(parts), tuple(kept)
