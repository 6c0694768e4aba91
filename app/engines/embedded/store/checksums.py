"""Checksums of the store's rows. SQLite checks its structure, but not what stands in a row."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import orjson

from hyblink.app.core.filters import facets_of

Query = Callable[[str, Sequence[Any]], Iterator[Any]]
"""Runs an SQL query and returns its rows one by one."""

COLUMNS = {
    "documents": "pk, id, title, text, lang, metadata, content_hash, sections, file_name",
    "passages": 'row, doc_pk, ordinal, start, "end", path, place',
    "terms": "row, ids, weights",
    "vectors": "row, vector",
    "weights": "row, ids, weights",
    "progress": "source, position",
}
"""The columns of each table that its checksum covers."""


def checksum(*values: object) -> int:
    """The CRC-32 of a row's values, of which the last ones may be bytes.

    >>> checksum(1, "a") == checksum(1, "a"), checksum("ab", "c") == checksum("a", "bc")
    (True, False)
    """
    plain = "\x1f".join([str(value) for value in values if not isinstance(value, bytes)])
    found = zlib.crc32(plain.encode("utf-8", "surrogatepass"))
    for value in values:
        if isinstance(value, bytes):
            found = zlib.crc32(value, found)
    return found


def document_checksum(key: int, *fields: str) -> int:
    """The CRC-32 of a document's key and its fields. Empty ones at the end, its sections and file, do not count."""
    return zlib.crc32("\x1f".join((str(key), *fields)).rstrip("\x1f").encode())


def blob_checksum(row: int, first: bytes, second: bytes | None = b"") -> int:
    """The CRC-32 of a row's number and its one or two values. Faster than `checksum`, for tables with many rows."""
    return zlib.crc32(second or b"", zlib.crc32(first, row & 0xFFFFFFFF))


def place_checksum(row: int, document: int, ordinal: int, start: int, end: int, path: str, place: str) -> int:
    """The CRC-32 of a passage's row, document and place. An empty path and an empty place do not count."""
    found = zlib.crc32(b"%d %d %d %d %d" % (row, document, ordinal, start, end))
    return zlib.crc32(f"{path}\x1f{place}".encode(), found) if path or place else found


_CHECKSUMS: dict[str, Callable[..., int]] = {
    "documents": document_checksum,
    "passages": place_checksum,
    "terms": blob_checksum,
    "vectors": blob_checksum,
    "weights": blob_checksum,
}


def problems(query: Query) -> list[str]:
    """The rows that do not match their checksums, and documents whose facets are not those of their metadata."""
    found = []
    for table, columns in COLUMNS.items():
        wrong = sum(
            _CHECKSUMS.get(table, checksum)(*values) != crc
            for *values, crc in query(f"SELECT {columns}, crc FROM {table} WHERE crc IS NOT NULL", ())
        )
        if wrong:
            found.append(f"{wrong} rows of {table} do not match their checksums")
    wrong = _wrong_facets(query)
    if wrong:
        found.append(f"{wrong} documents have other facets than their metadata")
    return found


def _wrong_facets(query: Query) -> int:
    wrong = 0
    last = 0
    while batch := list(query("SELECT pk, metadata FROM documents WHERE pk > ? ORDER BY pk LIMIT 2000", (last,))):
        stored: dict[int, list[tuple[Any, ...]]] = {pk: [] for pk, _ in batch}
        for pk, key, text, number in query(
            "SELECT doc_pk, key, text, number FROM facets WHERE doc_pk BETWEEN ? AND ?", (batch[0][0], batch[-1][0])
        ):
            stored.setdefault(pk, []).append((key, text, number))
        for pk, metadata in batch:
            try:
                own = [(key, *pair) for key, value in orjson.loads(metadata).items() for pair in facets_of(value)]
                wrong += sorted(stored[pk], key=repr) != sorted(own, key=repr)
            except (ValueError, AttributeError, TypeError):
                wrong += 1  # its metadata cannot be read
        last = batch[-1][0]
    return wrong
