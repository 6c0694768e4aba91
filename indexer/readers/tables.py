"""Writes the sheets of workbooks as CSV files, so that each of their rows can be a document."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path

from hyblink.indexer.readers.archives import safe_name
from hyblink.indexer.readers.format import Member, WholeFile
from hyblink.indexer.readers.opendocument import read_odf
from hyblink.indexer.readers.sheets import Table, collected_tables, read_xls, read_xlsx


def unpack_xlsx(path: Path, folder: Path) -> Iterator[Member]:
    """The sheets of an Excel workbook. Raises InvalidInputError."""
    return _unpacked(path, folder, read_xlsx)


def unpack_xls(path: Path, folder: Path) -> Iterator[Member]:
    """The sheets of an old Excel workbook. Raises InvalidInputError."""
    return _unpacked(path, folder, read_xls)


def unpack_odf(path: Path, folder: Path) -> Iterator[Member]:
    """The sheets of an OpenDocument spreadsheet; none for other OpenDocument files. Raises InvalidInputError."""
    return _unpacked(path, folder, read_odf)


def _unpacked(path: Path, folder: Path, read: Callable[[bytes], WholeFile]) -> Iterator[Member]:
    with collected_tables() as tables:
        read(path.read_bytes())
    for number, table in enumerate(tables):
        at = folder / f"{number:06d}.csv"
        _write(table, at)
        yield Member(f"{safe_name(table.name.replace('/', '_'))}.csv", at.name)


def _write(table: Table, path: Path) -> None:
    columns = sorted({column for row in table.rows for column in row})
    with path.open("x", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file)
        for row in table.rows:
            writer.writerow([" ".join(row.get(column, "").split()) for column in columns])
