"""Reads JSON Lines, one object per line, and JSON files: an array of objects, or one object."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from hyblink.app.core.errors import InvalidInputError, UserError
from hyblink.indexer.readers.encodings import decoded
from hyblink.indexer.readers.format import Options, Row
from hyblink.indexer.readers.rows import lines, open_bytes, read_bounded

_BIG = 2.0**63
_LISTS = ("documents", "docs", "items", "data", "rows", "records", "results", "entries", "articles", "hits", "value")


def rows(path: Path, options: Options) -> Iterator[Row]:
    """Yield a row for every line that is not blank. A line that is not a JSON object is yielded with its error.

    A file whose first character opens an array is read as one array, whatever its name says.
    """
    if _begins(path) == b"[":
        yield from array_rows(path, options)
        return
    for number, line in _lines(path, options):
        if not isinstance(line, bytes):
            yield Row(number, number, error=line)
            continue
        if not line.strip():
            continue
        yield _row(number, line)


def array_rows(path: Path, options: Options) -> Iterator[Row]:
    """Yield the objects of a JSON file: of its array, of the one list of objects in its object, or the object itself.

    The file is read whole, up to `max_row_bytes`; larger ones are yielded as an error. JSON Lines is read line by line.
    """
    try:
        source = decoded(read_bounded(path, options.max_row_bytes), options.encoding)
    except UserError as error:
        error.expected = f"{error.expected} (ingest.max_row_bytes); JSON Lines may be of any size"
        yield Row(1, 1, error=error)
        return
    try:
        found = loads(source.encode())
    except ValueError as error:
        if _is_lines(source):
            for number, line in _lines(path, options):
                if isinstance(line, UserError):
                    yield Row(number, number, error=line)
                elif line.strip():
                    yield _row(number, line)
            return
        yield Row(1, 1, error=InvalidInputError(f"not JSON: {error}", expected="a JSON array, object, or JSON Lines"))
        return
    objects = _objects(found)
    # An object that is the whole file has no row number: the file's name names it.
    for number, one in enumerate(objects, start=0 if objects == [found] else 1):
        if isinstance(one, dict):
            yield Row(number, number, one, raw=one)
        else:
            failure = InvalidInputError("the row has the wrong type", received=one, expected="a JSON object")
            yield Row(number, number, error=failure, raw=one)


def _lines(path: Path, options: Options) -> Iterator[tuple[int, bytes | UserError]]:
    return lines(path, options.max_row_bytes, options.opened, options.encoding, options.noted, guess=False)


def loads(data: bytes) -> Any:
    """A JSON value; integers of any size are kept. Raises ValueError."""
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError:
        if b"\\ud" not in data and b"\\uD" not in data:
            raise
        found = None
    if found is not None and not _has_big_float(found):
        return found
    # Integers over 64 bits, which the fast parser turns into floats, and single surrogates, which it refuses.
    import json

    try:
        return json.loads(data, parse_constant=_refuse)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _has_big_float(value: Any) -> bool:
    kind = type(value)
    if kind is dict:
        value = value.values()
    elif kind is not list:
        return kind is float and not -_BIG < value < _BIG
    for one in value:
        kind = type(one)
        if kind is str:
            continue
        if kind is float:
            if not -_BIG < one < _BIG:
                return True
        elif (kind is dict or kind is list) and _has_big_float(one):
            return True
    return False


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _objects(found: Any) -> list[Any]:
    if isinstance(found, list):
        return found
    if isinstance(found, dict):
        inner = [
            key for key, value in found.items() if isinstance(value, list) and value and isinstance(value[0], dict)
        ]
        named = [key for key in inner if key.casefold() in _LISTS]
        if named and len(inner) == 1:
            listed: list[Any] = found[named[0]]
            return listed
    return [found]


def _row(number: int, line: bytes) -> Row:
    try:
        found = loads(line)
    except ValueError as error:
        failure = InvalidInputError(f"not JSON: {error}", received=line[:80], expected="one JSON object a line")
        return Row(number, number, error=failure, raw=line)
    if not isinstance(found, dict):
        failure = InvalidInputError("the row has the wrong type", received=found, expected="a JSON object")
        return Row(number, number, error=failure, raw=line)
    return Row(number, number, found, raw=line)


def _begins(path: Path) -> bytes:
    """The first byte of a file that is no white space or byte order mark, if it is ASCII; else b""."""
    try:
        with open_bytes(path) as file:
            return file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    except (OSError, EOFError):
        return b""


def _is_lines(source: str) -> bool:
    """Whether the first line that is not blank is a JSON object by itself."""
    first = next((line for line in source.splitlines() if line.strip()), "")
    try:
        return isinstance(loads(first.encode()), dict)
    except ValueError:
        return False
