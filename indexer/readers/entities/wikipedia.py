"""Streams entities from a Wikipedia dump: title, first paragraph, redirects as aliases, Wikidata ids.

The dump is `…-pages-articles.xml[.bz2]`. If `…-page_props.sql.gz` lies in the same folder, it maps pages to Wikidata
items.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hyblink.app.core.errors import InvalidInputError
from hyblink.indexer.readers.rows import lines, open_packed

_MAX_LINE = 2**26
_PROPERTY = re.compile(r"\((\d+),'(wikibase_item|disambiguation)','(Q\d+)?'")
_DISAMBIGUATION = re.compile(
    r"\{\{\s*(disambig|disamb\b|dab\b|hndis|geodis|(human|given|place) name disambig|begriffsklärung|homonymie|"
    r"desambiguación|disambigua\b|消歧义)",
    re.IGNORECASE,
)
_SPACES = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class PageProps:
    """Page properties by page id: `items` maps a page to its Wikidata item; `disambiguations` holds such pages."""

    items: dict[int, str] = field(default_factory=dict)
    disambiguations: set[int] = field(default_factory=set)


def page_props_beside(dump: Path) -> Path | None:
    """The path of the `…page_props.sql[.gz]` file next to `dump`, or None if there is none.

    A file with the prefix of the dump is preferred. Otherwise the only such file in the folder is taken.
    """
    found = sorted(dump.parent.glob("*page_props.sql*"))
    own = [result for result in found if result.name.partition("page_props")[0].strip("-") == _prefix(dump.name)]
    return next(iter(own), found[0] if len(found) == 1 else None)


def _prefix(name: str) -> str:
    """`enwiki-20261101` of `enwiki-20261101-pages-articles-multistream.xml.bz2`.

    >>> _prefix("dump.xml")
    'dump'
    """
    return name.partition("-pages-")[0].partition(".")[0]


def read_page_props(path: Path) -> PageProps:
    """Read the Wikidata items and disambiguation pages from `page_props.sql[.gz]`.

    Raises TooLargeError for a line over 64 MiB, InvalidInputError for broken gzip.
    """
    found = PageProps()
    for _, line in lines(path, _MAX_LINE):
        if not isinstance(line, bytes):
            raise line
        if line.startswith(b"INSERT INTO"):
            for page, name, item in _PROPERTY.findall(line.decode("utf-8", "replace")):
                if name == "disambiguation":
                    found.disambiguations.add(int(page))
                elif item:
                    found.items[int(page)] = item
    return found


def _pages(path: Path) -> Iterator[tuple[int, str, str, str]]:
    """Yield (page id, title, redirect target or "", wikitext) of every article. Memory stays constant."""
    from defusedxml.common import DefusedXmlException
    from defusedxml.ElementTree import ParseError, iterparse

    try:
        with open_packed(path) as file:
            root: Any = None
            for event, element in iterparse(file, events=("start", "end")):
                root = element if root is None else root
                if event == "start" or element.tag.rpartition("}")[2] != "page":
                    continue
                namespace = element.tag.removesuffix("page")
                if element.findtext(f"{namespace}ns") == "0":
                    redirect = element.find(f"{namespace}redirect")
                    yield (
                        int(element.findtext(f"{namespace}id") or 0),
                        element.findtext(f"{namespace}title") or "",
                        "" if redirect is None else str(redirect.get("title", "")),
                        element.findtext(f"{namespace}revision/{namespace}text") or "",
                    )
                root.clear()
    except (ParseError, DefusedXmlException, EOFError, OSError) as error:
        raise InvalidInputError(f"not a Wikipedia dump: {error}", received=path.name) from error


def introduction(wikitext: str) -> str:
    """The first paragraph of an article as plain text, without templates, tables, references and file links.

    >>> introduction("{{Infobox}}\\n'''Ulm''' is a town on the [[Danube|river]].<ref>x</ref>\\n\\n== History ==\\nOld.")
    'Ulm is a town on the river.'
    """
    import mwparserfromhell

    head = wikitext.partition("\n==")[0]
    code = mwparserfromhell.parse(head)
    unwanted: list[Any] = [
        *code.filter_tags(matches=lambda tag: str(tag.tag) in {"ref", "table", "gallery"}),
        *code.filter_wikilinks(matches=lambda link: ":" in str(link.title)),
        *code.filter_templates(),
    ]
    for node in unwanted:
        _removed(code, node)
    for paragraph in str(code.strip_code()).split("\n"):
        text = _SPACES.sub(" ", paragraph).strip()
        if any(item.isalnum() for item in text):
            return text
    return ""


def _removed(code: Any, node: Any) -> None:
    try:
        code.remove(node)
    except ValueError:
        return  # already removed together with an enclosing node


def wikipedia_entities(dump: Path, page_props: Path | None = None) -> Iterator[dict[str, Any]]:
    """Yield an entity for every article except redirects and disambiguation pages.

    The dump is read twice. The first pass collects redirects, which become aliases of their final target (at most 1000
    per entity). The id is the Wikidata item if `page_props` has one, else the page number. Raises InvalidInputError if
    the file is not a Wikipedia dump.
    """
    props = read_page_props(page_props) if page_props is not None else PageProps()
    targets = {title: target.partition("#")[0] for _, title, target, _ in _pages(dump) if target}
    aliases: dict[str, list[str]] = {}
    for title in targets:
        aliases.setdefault(_followed(title, targets), []).append(title)
    for page, title, target, text in _pages(dump):
        if target or page in props.disambiguations or _DISAMBIGUATION.search(text):
            continue
        metadata: dict[str, Any] = {"page": page}
        if page in props.items:
            metadata["wikidata"] = props.items[page]
        yield {
            "id": props.items.get(page, str(page)),
            "title": title,
            "description": introduction(text),
            "aliases": aliases.get(title, [])[:1000],
            "metadata": metadata,
        }


def _followed(title: str, targets: dict[str, str]) -> str:
    """The final target of a chain of redirects. A cycle is left at the last title before it repeats."""
    seen = {title}
    while (target := targets.get(title)) is not None and target not in seen:
        seen.add(title := target)
    return title
