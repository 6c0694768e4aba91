"""Reads JSON Lines: one JSON object per line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import orjson

from hyblink.app.core.errors import InvalidInputError
from hyblink.indexer.readers.format import Opened, Row
from hyblink.indexer.readers.rows import lines


def rows(path: Path, max_row_bytes: int, opened: Opened) -> Iterator[Row]:
    """Yield a row for every line that is not blank. A line that is not a JSON object is yielded with its error."""
    for number, line in lines(path, max_row_bytes, opened):
        if not isinstance(line, bytes):
            yield Row(number, number, error=line)
            continue
        if not line.strip():
            continue
        try:
            found = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            failure = InvalidInputError(f"not JSON: {error}", received=line[:80], expected="one JSON object a line")
            yield Row(number, number, error=failure, raw=line)
            continue
        if not isinstance(found, dict):
            failure = InvalidInputError("the row has the wrong type", received=found, expected="a JSON object")
            yield Row(number, number, error=failure, raw=line)
            continue
        yield Row(number, number, found, raw=line)
