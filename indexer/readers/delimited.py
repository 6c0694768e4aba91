"""Reads CSV and TSV files with a header row.

A quoted field may contain line breaks, so positions count rows, not lines.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from hyblink.app.core.errors import InvalidInputError, UserError
from hyblink.indexer.readers.format import Opened, Row
from hyblink.indexer.readers.rows import decode, lines


def comma_rows(path: Path, max_row_bytes: int, opened: Opened) -> Iterator[Row]:
    """Yield the rows of a CSV file; a bad row is yielded with its error. `max_row_bytes` limits a line and a field."""
    return _rows(path, max_row_bytes, opened, ",")


def tab_rows(path: Path, max_row_bytes: int, opened: Opened) -> Iterator[Row]:
    """Yield the rows of a TSV file; a bad row is yielded with its error. `max_row_bytes` limits a line and a field."""
    return _rows(path, max_row_bytes, opened, "\t")


def _rows(path: Path, max_row_bytes: int, opened: Opened, delimiter: str) -> Iterator[Row]:
    csv.field_size_limit(max_row_bytes)
    errors: list[tuple[int, UserError]] = []

    def text_lines() -> Iterator[str]:
        for number, line in lines(path, max_row_bytes, opened):
            if isinstance(line, bytes):
                try:
                    yield decode(line) + "\n"
                    continue
                except UserError as error:
                    errors.append((number, error))
            else:
                errors.append((number, line))

    reader = csv.DictReader(text_lines(), delimiter=delimiter, strict=True)
    number = 0
    while True:
        number += 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            failure = InvalidInputError(f"bad row: {error}", expected=f"fields separated by {delimiter!r}")
            yield Row(number, number, error=failure)
            continue
        while errors:
            line, problem = errors.pop(0)
            yield Row(number, line, error=problem)
        if row is None:
            return
        yield _row(number, row)


def _row(number: int, row: dict[str | None, object]) -> Row:
    if None in row or None in row.values():
        failure = InvalidInputError(
            "the row has another number of fields than the header",
            received=list(row.values()),
            expected="as many",
        )
        return Row(number, number, error=failure, raw=row)
    return Row(number, number, {str(key): value for key, value in row.items()}, raw=row, typed=False)
