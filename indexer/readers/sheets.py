"""Reads Excel workbooks: .xlsx and .xlsm as XML parts, .xls by xlrd."""

from __future__ import annotations

import datetime
import io
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from hyblink.indexer.readers.blocks import Blocks, given_title, reading
from hyblink.indexer.readers.format import WholeFile
from hyblink.indexer.readers.packed import Package, attribute, encrypted, local, relation_id

_PLAIN_NAME = re.compile(r"(?:Sheet|Tabelle|Feuil|Hoja|Foglio|Planilha|Blad|Лист)\d*")
_NOT_CODE = re.compile(r'"[^"]*"|\\.|\[[^\]]*\]')
_WIDEST_GAP = 20
"""So many empty cells are shown between two others at most: a cell in the last column has thousands before it."""
_LARGEST_WHOLE = 1e21
_BUILT_IN = (
    {9: "0%", 10: "0.00%"} | dict.fromkeys((14, 15, 16, 17, 18, 19, 20, 21, 22, 45, 47), "yyyy") | {46: "[h]:mm"}
)


def number(value: float) -> str:
    """A number as people see it.

    >>> number(129.90000000000001), number(3.0), number(0.1 + 0.2)
    ('129.9', '3', '0.3')
    """
    if abs(value) < _LARGEST_WHOLE and value == int(value):
        return str(int(value))
    return f"{value:.15g}"


def moment(when: datetime.datetime | datetime.date | datetime.time | datetime.timedelta) -> str:
    """A date or time in ISO form, without a time of day that is midnight."""
    if isinstance(when, datetime.timedelta):
        seconds = round(when.total_seconds())
        return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    if isinstance(when, datetime.datetime):
        when = _whole_second(when)
        return when.date().isoformat() if when.time() == datetime.time() else when.isoformat()
    return when.isoformat("seconds") if isinstance(when, datetime.time) else when.isoformat()


def _whole_second(when: datetime.datetime) -> datetime.datetime:
    # Times of day are fractions of a day, a few microseconds off.
    return (when + datetime.timedelta(microseconds=500_000)).replace(microsecond=0)


@dataclass(frozen=True, slots=True)
class Table:
    """A sheet: its name, and the text of the cells of its filled rows by column."""

    name: str
    rows: list[dict[int, str]]


_TABLES: ContextVar[list[Table] | None] = ContextVar("tables", default=None)


@contextmanager
def collected_tables() -> Iterator[list[Table]]:
    """Inside, the sheets of workbooks that are read are in the list too."""
    tables: list[Table] = []
    token = _TABLES.set(tables)
    try:
        yield tables
    finally:
        _TABLES.reset(token)


def add_sheet(blocks: Blocks, name: str, rows: Iterable[dict[int, str]]) -> None:
    """Add a sheet as a section. A row is the text of its cells by column; those without any text are left out."""
    blocks.place(f"sheet {name}")
    filled = [{column: text for column, text in row.items() if text} for row in rows]
    filled = [row for row in filled if row]
    if not filled:
        return
    if (tables := _TABLES.get()) is not None:
        tables.append(Table(name, filled))
    if not _PLAIN_NAME.fullmatch(name):
        blocks.heading(1, name)
    first = min(min(row) for row in filled)
    blocks.add("\n".join(_line(row, first) for row in filled))


def _line(row: dict[int, str], first: int) -> str:
    cells: list[str] = []
    last = first - 1
    for column in sorted(row):
        cells.extend([""] * min(column - last - 1, _WIDEST_GAP))
        cells.append(" ".join(row[column].split()))
        last = column
    return " | ".join(cells)


def read_xlsx(data: bytes) -> WholeFile:
    """The cells of an Excel workbook, its sheets as sections. Raises InvalidInputError.

    Formulas are given by their last values. Hidden sheets are included; charts, comments and macros are left out.
    """
    with reading("Excel"):
        package = Package(data, "Excel")
        main = package.main()
        workbook = package.tree(main)
        relations = package.relations(main)
        book = _Book(package, main, workbook)
        blocks = Blocks()
        seen: set[str] = set()
        for sheet in workbook.iter():
            if local(sheet) != "sheet":
                continue
            kind, part = relations.get(relation_id(sheet), ("", ""))
            if kind == "worksheet" and part not in seen:
                seen.add(part)
                add_sheet(blocks, attribute(sheet, "name"), book.rows(part))
        found = package.core()
        return blocks.done(given_title(found.pop("title", "")), found)


class _Book:
    """What the cells of a workbook refer to: its texts and the forms of its numbers."""

    def __init__(self, package: Package, main: str, workbook: Any) -> None:
        from openpyxl.utils.datetime import CALENDAR_MAC_1904, CALENDAR_WINDOWS_1900  # type: ignore[import-untyped]

        self._package = package
        self._epoch = CALENDAR_WINDOWS_1900
        for element in workbook.iter():
            if local(element) == "workbookPr" and attribute(element, "date1904") in ("1", "true"):
                self._epoch = CALENDAR_MAC_1904
        self._texts: list[str] = []
        for part in package.related(main, "sharedStrings"):
            self._texts.extend(_rich(item) for item in package.tree(part) if local(item) == "si")
        self._forms: list[str] = []
        for part in package.related(main, "styles"):
            self._forms.extend(_forms(package.tree(part)))

    def rows(self, part: str) -> Iterator[dict[int, str]]:
        """The rows of a sheet, read one by one: of a large sheet only one is in memory as XML."""
        from lxml import etree  # type: ignore[import-untyped]

        source = io.BytesIO(self._package.part(part))
        for _, row in etree.iterparse(source, tag="{*}row", resolve_entities=False, no_network=True):
            cells: dict[int, str] = {}
            column = -1
            for cell in row:
                if local(cell) == "c":
                    column = _column(cell.get("r") or "", column + 1)
                    cells[column] = self._cell(cell)
            yield cells
            row.clear()
            while row.getprevious() is not None:
                del row.getparent()[0]

    def _cell(self, cell: Any) -> str:
        kind = cell.get("t") or "n"
        if kind == "inlineStr":
            return "".join(_rich(part) for part in cell if local(part) == "is")
        value = next((part.text or "" for part in cell if local(part) == "v"), "")
        if not value:
            return ""
        if kind == "s":
            index = int(value)
            return self._texts[index] if 0 <= index < len(self._texts) else ""
        if kind == "b":
            return "TRUE" if value == "1" else "FALSE"
        return self._number(value, cell.get("s") or "") if kind == "n" else value

    def _number(self, value: str, style: str) -> str:
        from openpyxl.utils.datetime import from_excel

        form = self._forms[int(style)] if style.isdecimal() and int(style) < len(self._forms) else ""
        try:
            amount = float(value)
            if form == "percent":
                return number(amount * 100) + "%"
            if form:
                return moment(from_excel(amount, self._epoch, timedelta=form == "duration"))
            return number(amount)
        except (ValueError, OverflowError):  # no date, or no number at all
            return value


def _column(reference: str, default: int) -> int:
    letters = 0
    for sign in reference[:3]:
        if not "A" <= sign <= "Z":
            break
        letters = letters * 26 + ord(sign) - 64
    return letters - 1 if letters else default


def _rich(item: Any) -> str:
    """The text of a cell that has parts, without the hints how to pronounce it."""
    texts: list[str] = []
    for child in item:
        if local(child) == "t":
            texts.append(child.text or "")
        elif local(child) == "r":
            texts.extend(part.text or "" for part in child if local(part) == "t")
    return "".join(texts)


def _forms(styles: Any) -> list[str]:
    """For each cell style: date, duration, percent, or an empty string for plain numbers."""
    codes: dict[str, str] = {str(key): code for key, code in _BUILT_IN.items()}
    for element in styles.iter():
        if local(element) == "numFmt":
            codes[attribute(element, "numFmtId")] = attribute(element, "formatCode")
    kinds = {key: _form(code) for key, code in codes.items()}
    return [
        kinds.get(attribute(style, "numFmtId"), "")
        for group in styles
        if local(group) == "cellXfs"
        for style in group
        if local(style) == "xf"
    ]


def _form(code: str) -> str:
    from openpyxl.styles.numbers import is_date_format, is_timedelta_format  # type: ignore[import-untyped]

    if len(code) > 255:  # more than Excel allows
        return ""
    if is_timedelta_format(code):
        return "duration"
    if is_date_format(code):
        return "date"
    return "percent" if "%" in _NOT_CODE.sub("", code) else ""


def read_xls(data: bytes) -> WholeFile:
    """The cells of an old Excel workbook, in the same form as those of a new one. Raises InvalidInputError."""
    if data.startswith(b"PK"):  # a new workbook with the old suffix
        return read_xlsx(data)
    import xlrd  # type: ignore[import-untyped]

    with reading("Excel"):
        try:
            book = xlrd.open_workbook(file_contents=data, on_demand=True, ragged_rows=True, logfile=io.StringIO())
        except xlrd.XLRDError as error:
            if "encrypted" in str(error).lower():
                raise encrypted("Excel") from error
            raise
        blocks = Blocks()
        for index, name in enumerate(book.sheet_names()):
            sheet = book.sheet_by_index(index)
            rows = (
                {column: _old_cell(cell, book.datemode) for column, cell in enumerate(sheet.row(line))}
                for line in range(sheet.nrows)
            )
            add_sheet(blocks, name, rows)
            book.unload_sheet(index)
        return blocks.done("", {"author": str(book.user_name or "").strip()})


def _old_cell(cell: Any, calendar: int) -> str:
    import xlrd

    if cell.ctype == xlrd.XL_CELL_NUMBER:
        return number(cell.value)
    if cell.ctype == xlrd.XL_CELL_BOOLEAN:
        return "TRUE" if cell.value else "FALSE"
    if cell.ctype == xlrd.XL_CELL_ERROR:
        return str(xlrd.error_text_from_code.get(cell.value, "#ERROR"))
    if cell.ctype == xlrd.XL_CELL_DATE:
        try:
            when = xlrd.xldate.xldate_as_datetime(cell.value, calendar)
        except (xlrd.XLDateError, ValueError, OverflowError):
            return number(cell.value)
        return moment(_whole_second(when).time() if 0 <= cell.value < 1 else when)
    return str(cell.value)
