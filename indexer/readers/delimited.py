"""Reads tables: CSV with any usual separator, and TSV.

A file is read twice: first to see what its columns hold, then for its rows. A quoted field may contain line breaks, so
positions count rows, not lines. Quotation marks that never close are taken as text, and it is said.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from hyblink.app.core.errors import InvalidInputError, UserError
from hyblink.indexer.readers.columns import Column
from hyblink.indexer.readers.fields import choose
from hyblink.indexer.readers.format import Options, Row
from hyblink.indexer.readers.rows import lines, utf8

_SEPARATORS = (",", ";", "\t", "|")
_SNIFFED_ROWS = 100
_SAMPLED_ROWS = 200
_LONGEST_ROW_LINES = 1000
_MOST_UNCLOSED = 100
_QUOTE = '"'


def comma_rows(path: Path, options: Options) -> Iterator[Row]:
    """Yield the rows of a CSV file, whose separator is found out; a bad row is yielded with its error."""
    return _Table(path, options, _separator(path, options), quoted=True).rows()


def tab_rows(path: Path, options: Options) -> Iterator[Row]:
    """Yield the rows of a TSV file; a bad row is yielded with its error. Quotation marks are text, unless used."""
    return _Table(path, options, "\t", quoted=_is_quoted(path, options)).rows()


class _Table:
    def __init__(self, path: Path, options: Options, separator: str, *, quoted: bool) -> None:
        self._path = path
        self._options = options
        self._separator = separator
        self._quoted = quoted

    def rows(self) -> Iterator[Row]:
        quiet = replace(self._options, opened=lambda _: None, noted=lambda _: None)
        names, columns, samples = self._looked_through(quiet)
        if not names:
            return
        fields = choose(names, self._options.columns, samples, table=True)
        named = {fields.id, fields.title, *fields.texts}
        convert: list[Callable[[str], Any]] = [
            _as_it_is if name in named else column.convert() for name, column in zip(names, columns, strict=True)
        ]
        noted = self._options.noted
        if fields.guessed or not self._options.header:
            noted(f"columns: {fields.told()} (guessed; change it with --id-column, --title-column, --text-column)")
        more = 0
        for number, line, found in self._data(self._options):
            if isinstance(found, UserError):
                yield Row(number, line, error=found)
                continue
            cells, extra = found[: len(names)], [cell for cell in found[len(names) :] if cell.strip()]
            values = {name: do(cell) for name, do, cell in zip(names, convert, cells, strict=False)}
            if extra:
                more += 1
                if fields.texts and names[-1] == fields.texts[-1]:
                    values[names[-1]] = self._separator.join([cells[-1], *extra])
                else:
                    values["extra"] = self._separator.join(extra)
            yield Row(number, line, values, raw=self._separator.join(found), fields_are=fields)
        if more:
            noted(
                f"{more} rows have more fields than the header; what is over stands in the last column, or in `extra`"
            )

    def _looked_through(self, options: Options) -> tuple[list[str], list[Column], list[dict[str, Any]]]:
        """(names, columns, first rows) of the table, from reading all of it once."""
        names: list[str] = []
        columns: list[Column] = []
        samples: list[dict[str, Any]] = []
        for at, (_, _, cells) in enumerate(self._records(options)):
            if isinstance(cells, UserError):
                continue
            if not names:
                names = _names(cells if options.header else [""] * len(cells))
                columns = [Column(name) for name in names]
                if at == 0 and options.header:
                    continue
            for column, cell in zip(columns, cells, strict=False):
                column.add(cell)
            if len(samples) < _SAMPLED_ROWS:
                samples.append(dict(zip(names, cells, strict=False)))
        return names, columns, samples

    def _data(self, options: Options) -> Iterator[tuple[int, int, list[str] | UserError]]:
        """(number of the row from 1, its line, its cells or error), without the header."""
        number = 0
        skip = options.header
        for _, line, found in self._records(options):
            if skip and not isinstance(found, UserError):
                skip = False
                continue
            number += 1
            yield number, line, found

    def _records(self, options: Options) -> Iterator[tuple[int, int, list[str] | UserError]]:
        """(number, line, cells or error) of every row that is not blank, the header among them."""
        waiting: deque[tuple[int, bytes | UserError]] = deque()
        source = lines(self._path, options.max_row_bytes, options.opened, options.encoding, options.noted)
        unclosed, quoted, number = 0, self._quoted, 0

        def following() -> tuple[int, bytes | UserError] | None:
            return waiting.popleft() if waiting else next(source, None)

        while (item := following()) is not None:
            line, found = item
            number += 1
            try:
                if isinstance(found, UserError):
                    raise found
                text = utf8(found)
            except UserError as error:
                yield number, line, error
                continue
            if not text.strip() or (number == 1 and text.strip().casefold() == f"sep={self._separator}"):
                number -= 1
                continue
            if not quoted or _QUOTE not in text:
                yield number, line, text.split(self._separator)
                continue
            taken: list[tuple[int, bytes | UserError]] = []
            parts, size = [text], len(found)
            inside = _inside(text, self._separator, inside=False)
            while inside and len(parts) < _LONGEST_ROW_LINES and size <= options.max_row_bytes:
                more = following()
                if more is None:
                    break
                taken.append(more)
                try:
                    if isinstance(more[1], UserError):
                        break
                    part = utf8(more[1])
                except UserError:
                    break
                parts.append(part)
                size += len(part)
                inside = _inside(part, self._separator, inside=True)
            if inside:
                waiting.extendleft(reversed(taken))
                unclosed += 1
                options.noted(f"line {line}: a quotation mark is never closed, and is taken as text")
                quoted = unclosed < _MOST_UNCLOSED
                yield number, line, text.split(self._separator)
                continue
            yield number, line, _cells("\n".join(parts), self._separator, options.max_row_bytes)


def _cells(text: str, separator: str, limit: int) -> list[str] | UserError:
    csv.field_size_limit(max(limit, 2**17))
    try:
        return next(csv.reader([text], delimiter=separator))
    except csv.Error as error:
        return InvalidInputError(f"bad row: {error}", expected=f"fields separated by {separator!r}")


def _inside(text: str, separator: str, *, inside: bool) -> bool:
    """Whether a line ends inside a quoted field; `inside` says whether it began in one."""
    at = 0
    while True:
        if inside or text[at : at + 1] == _QUOTE:
            at += not inside
            while True:
                at = text.find(_QUOTE, at)
                if at < 0:
                    return True
                if text[at + 1 : at + 2] != _QUOTE:
                    break
                at += 2
            inside = False
        at = text.find(separator, at)
        if at < 0:
            return False
        at += 1


def _as_it_is(cell: str) -> str:
    return cell


def _names(header: list[str]) -> list[str]:
    """The names of the columns: stripped, those without one numbered, equal ones told apart."""
    names: list[str] = []
    while header and not header[-1].strip() and any(cell.strip() for cell in header):
        header = header[:-1]
    for number, cell in enumerate(header, start=1):
        name = free = cell.strip() or f"column{number}"
        again = 2
        while free in names:
            free, again = f"{name}_{again}", again + 1
        names.append(free)
    return names


def _first_lines(path: Path, options: Options) -> list[str]:
    found: list[str] = []
    for _, line in lines(path, options.max_row_bytes, encoding=options.encoding):
        if isinstance(line, bytes) and line.strip():
            found.append(line.decode("utf-8", "replace").replace("\r", " "))
        if len(found) >= _SNIFFED_ROWS:
            break
    return found


def _separator(path: Path, options: Options) -> str:
    """The separator that cuts the header and most of the first rows into the same number of fields, above one."""
    first = _first_lines(path, options)
    if not first:
        return ","
    if first[0].strip().casefold().startswith("sep=") and len(first[0].strip()) == 5:
        return first[0].strip()[4]
    best, chosen = (0.0, 0), ","
    for separator in _SEPARATORS:
        counts = [len(row) for row in csv.reader(first, delimiter=separator) if row]
        fields = counts[0] if counts else 0
        if fields < 2:
            continue
        score = (round(sum(count == fields for count in counts) / len(counts), 1), fields)
        if score > best:
            best, chosen = score, separator
    return chosen


def _is_quoted(path: Path, options: Options) -> bool:
    """Whether a TSV file quotes fields: all of its first lines read as quoted, each with as many fields as the header.

    Without one quotation mark at the beginning of a field there is nothing to decide.
    """
    first = _first_lines(path, options)
    if not any(line.startswith(_QUOTE) or f"\t{_QUOTE}" in line for line in first):
        return False
    try:
        counts = [len(row) for row in csv.reader(first, delimiter="\t", strict=True) if row]
    except csv.Error as error:
        # The beginning of a file may end inside a field; a mark that is followed by text is none of a quoted field.
        return "unexpected end" in str(error) and len(first) >= _SNIFFED_ROWS
    return len(set(counts)) == 1
