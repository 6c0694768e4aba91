"""Entities from a Wikipedia dump, streamed: title, first paragraph, redirects as aliases, Wikidata ids.

The dump is `…-pages-articles.xml[.bz2]`; `…-page_props.sql.gz` beside it says which page is which Wikidata item.
"""

from __future__ import annotations

import bz2
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

from app.core.errors import InvalidInputError
from indexer.readers.rows import lines, open_bytes

_MAX_LINE = 2**26
_ITEM = re.compile(r"\((\d+),'wikibase_item','(Q\d+)'")
_DISAMBIGUATION = re.compile(r"\{\{\s*(disambig|hndis|geodis|begriffsklärung)", re.IGNORECASE)
_SPACES = re.compile(r"\s+")


def wikidata_ids(path: Path) -> dict[int, str]:
    """Wikidata items by page id, from `page_props.sql[.gz]`."""
    found: dict[int, str] = {}
    for _, line in lines(path, _MAX_LINE):
        if not isinstance(line, bytes):
            raise line
        if line.startswith(b"INSERT INTO"):
            found |= {int(page): item for page, item in _ITEM.findall(line.decode("utf-8", "replace"))}
    return found


def _opened(path: Path) -> IO[bytes]:
    return cast("IO[bytes]", bz2.open(path, "rb")) if path.suffix == ".bz2" else open_bytes(path)


def _pages(path: Path) -> Iterator[tuple[int, str, str, str]]:
    """(page id, title, redirect's target or "", wikitext) of every article; nothing is kept of a page that is done."""
    from defusedxml.common import DefusedXmlException
    from defusedxml.ElementTree import ParseError, iterparse

    try:
        with _opened(path) as file:
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
    """The first paragraph of an article as plain text: no templates, tables, references, files.

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
        if any(one.isalnum() for one in text):
            return text
    return ""


def _removed(code: Any, node: Any) -> None:
    try:
        code.remove(node)
    except ValueError:
        return  # it went with what it stood in


def wikipedia_entities(dump: Path, page_props: Path | None = None) -> Iterator[dict[str, Any]]:
    """An entity for every article but redirects and disambiguations. The dump is read twice: for redirects first."""
    items = wikidata_ids(page_props) if page_props is not None else {}
    aliases: dict[str, list[str]] = {}
    for _, title, target, _ in _pages(dump):
        if target:
            aliases.setdefault(target.partition("#")[0], []).append(title)
    for page, title, target, text in _pages(dump):
        if target or _DISAMBIGUATION.search(text):
            continue
        metadata: dict[str, Any] = {"page": page}
        if page in items:
            metadata["wikidata"] = items[page]
        yield {
            "id": items.get(page, str(page)),
            "title": title,
            "description": introduction(text),
            "aliases": aliases.get(title, [])[:1000],
            "metadata": metadata,
        }
