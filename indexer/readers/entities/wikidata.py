"""Reads entities from Wikidata JSON: a dump with one item per line, or an API response of `wbgetentities`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import orjson

from hyblink.app.core.errors import InvalidInputError, TooLargeError
from hyblink.indexer.readers.rows import open_packed

_ANY = "mul"
"""Wikidata's language code for labels that are the same in all languages."""
_MAX_WHOLE = 256 * 2**20


def wikidata_entities(path: Path, lang: str = "en") -> Iterator[object]:
    """Yield one entity for each item that has a label in `lang` or a language-independent one ("mul").

    Yields None for an item without such a label, for example a lexeme. Raises InvalidInputError if the file is not
    Wikidata JSON, TooLargeError if it has no line breaks between items and is over 256 MiB.
    """
    with open_packed(path) as file:
        first = file.readline(_MAX_WHOLE + 1).removeprefix(b"\xef\xbb\xbf")
        while first and not first.strip():
            first = file.readline(_MAX_WHOLE + 1)
        if first.strip() == b"[" or _is_item(first):
            for number, line in enumerate(chain([first], file), 1):
                item = line.strip().rstrip(b",")
                if item not in {b"", b"[", b"]"}:
                    yield _entity(_parsed(item, f"{path.name}:{number}"), lang, f"{path.name}:{number}")
            return
        whole = first + file.read(_MAX_WHOLE + 1)
    if len(whole) > _MAX_WHOLE:
        raise TooLargeError(
            "the JSON has no item on each line and is too large to be read whole", received=f"over {_MAX_WHOLE} bytes",
            expected="a dump of Wikidata, an item on each line",
        )  # fmt: skip
    found = _parsed(whole, path.name)
    items = found.get("entities", {}).values() if isinstance(found, Mapping) else found
    for item in items:
        yield _entity(item, lang, path.name)


def _is_item(line: bytes) -> bool:
    try:
        row = orjson.loads(line.strip().rstrip(b","))
    except orjson.JSONDecodeError:
        return False
    return isinstance(row, Mapping) and "entities" not in row


def _parsed(item: bytes, place: str) -> Any:
    try:
        return orjson.loads(item)
    except orjson.JSONDecodeError as error:
        raise InvalidInputError(f"{place} is not an item of Wikidata ({error})", received=item[:80]) from None


def _entity(row: Any, lang: str, place: str) -> dict[str, Any] | None:
    if not isinstance(row, Mapping) or not isinstance(row.get("id"), str):
        raise InvalidInputError(f"{place} is not an item of Wikidata", received=row, expected="an object with an id")

    def own(name: str) -> Any:
        values = row.get(name)
        known = values if isinstance(values, Mapping) else {}  # PHP writes an empty map as []
        return known.get(lang) or known.get(_ANY)

    try:
        label, description, aliases = own("labels"), own("descriptions"), own("aliases")
        if not label:
            return None
        return {
            "id": row["id"],
            "title": label["value"],
            "description": description["value"] if description else "",
            "aliases": [alias["value"] for alias in aliases or ()],
            "lang": lang,
        }
    except (KeyError, TypeError) as error:
        raise InvalidInputError(f"{place} is not an item of Wikidata ({error!r})", received=row["id"]) from None
