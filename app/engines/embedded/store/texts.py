"""Reads the texts of passages without holding more than one whole document in memory.

A passage is a part of its document's text. Joining passages with documents in SQL would copy the whole text for each
passage: 25 GB for one document of 8 million characters in 3,000 passages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import orjson

_CHARS = 16_000_000
"""Passages that are read together have at most so many characters, or are a single one."""

Query = Callable[[str, Sequence[Any]], Iterator[Any]]
"""Runs an SQL query and returns its rows one by one."""


class Place(NamedTuple):
    """Where a passage's text is: characters `start:end` of the document with the key `document`."""

    row: int
    document: int
    start: int
    end: int


class PassageText(NamedTuple):
    """A passage's document id and title, and its own text."""

    doc_id: str
    title: str
    text: str


def read(query: Query, places: Iterable[Place]) -> dict[int, PassageText]:
    """The texts of passages by row. Each document is read once."""
    wanted: dict[int, list[Place]] = {}
    for place in places:
        wanted.setdefault(place.document, []).append(place)
    found: dict[int, PassageText] = {}
    sql = "SELECT pk, id, title, text FROM documents WHERE pk IN (SELECT value FROM json_each(?))"
    for key, doc_id, title, text in query(sql, (orjson.dumps(list(wanted)).decode(),)):
        for row, _, start, end in wanted[key]:
            found[row] = PassageText(doc_id, title, text[start:end])
    return found


def in_parts(places: Sequence[Place]) -> Iterator[Sequence[Place]]:
    """The places in order, in parts of at most `_CHARS` characters.

    >>> [len(part) for part in in_parts([Place(1, 1, 0, 9_000_000), Place(2, 1, 0, 9_000_000), Place(3, 2, 0, 5)])]
    [1, 2]
    """
    begin = size = 0
    for at, place in enumerate(places):
        length = place.end - place.start
        if size and size + length > _CHARS:
            yield places[begin:at]
            begin, size = at, 0
        size += length
    if begin < len(places):
        yield places[begin:]
