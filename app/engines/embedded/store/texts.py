"""Reads the texts of passages without holding more than one whole document in memory.

A passage is a part of its document's text. A join in SQL copies the whole text for each passage: 25 GB for one document
of 8 million characters in 3,000 passages. So SQL cuts out the passages near the beginning of a document, and those
further on are cut here, from a document that is read once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import orjson

_NEAR = 65_536
"""SQL has to step through the characters before a passage: it does so up to here."""
OWN_TEXT = f'CASE WHEN p."end" <= {_NEAR} THEN substr(d.text, p.start + 1, p."end" - p.start) END'
"""The text of a passage `p` of the document `d`, or NULL if it lies further on."""
_CHARS = 16_000_000
"""Passages that are read together have at most so many characters, or are a single one."""

Query = Callable[[str, Sequence[Any]], Iterator[Any]]
"""Runs an SQL query and returns its rows one by one."""
Found = Sequence[Any]
"""A result row that begins with: row, document key, start, end, document id, title, `OWN_TEXT`."""


def own_texts(query: Query, found: Sequence[Found]) -> dict[int, str]:
    """The texts of passages by row. A document whose passages SQL has not cut out is read once."""
    texts: dict[int, str] = {}
    wanted: dict[int, list[tuple[int, int, int]]] = {}
    for row, document, start, end, _, _, text, *_ in found:
        if text is not None and len(text) == end - start:  # SQL stops at a NUL character
            texts[row] = text
        else:
            wanted.setdefault(document, []).append((row, start, end))
    if wanted:
        sql = "SELECT pk, text FROM documents WHERE pk IN (SELECT value FROM json_each(?))"
        for key, text in query(sql, (orjson.dumps(list(wanted)).decode(),)):
            for row, start, end in wanted[key]:
                texts[row] = text[start:end]
    return texts


def in_parts(found: Sequence[Found]) -> Iterator[Sequence[Found]]:
    """The result rows in order, in parts of passages of at most `_CHARS` characters.

    >>> [len(part) for part in in_parts([(1, 1, 0, 9_000_000), (2, 1, 0, 9_000_000), (3, 2, 0, 5)])]
    [1, 2]
    """
    begin = size = 0
    for at, (_, _, start, end, *_) in enumerate(found):
        if size and size + end - start > _CHARS:
            yield found[begin:at]
            begin, size = at, 0
        size += end - start
    if begin < len(found):
        yield found[begin:]
