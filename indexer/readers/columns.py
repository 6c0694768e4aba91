"""Types the columns of a table: a column holds numbers, dates or texts as a whole, never cell by cell.

A column is numeric unless a cell is no number, has a leading zero or an exponent, two different cells would become one
number (`3.10` and `3.1`), or its name says that its digits are a name: a version, a code, a telephone number.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hyblink.indexer.readers.fields import plain

_PLAIN = re.compile(r"[+-]?(0|[1-9][0-9]{0,17})(\.[0-9]{1,17})?")
_POINT = re.compile(r"[+-]?[1-9][0-9]{0,2}(,[0-9]{3})+(\.[0-9]{1,17})?")
_COMMA = re.compile(r"[+-]?(0|[1-9][0-9]{0,17}|[1-9][0-9]{0,2}([. ][0-9]{3})+)(,[0-9]{1,17})?")
_DIGIT_NAMES = re.compile(
    r"version|release|code|zip|postal|postcode|plz|sku|phone|tel|fax|mobile|isbn|issn|ean|upc|gtin|iban|bic|ssn|serial"
    r"|account|vat|hash|commit|build|revision|slug|ref"
)
_DOTTED = re.compile(r"([0-3]?[0-9])\.([01]?[0-9])\.([12][0-9]{3})")
_SLASHED = re.compile(r"([0-3]?[0-9])/([0-3]?[0-9])/([12][0-9]{3})")
_MOST_VALUES = 200_000
"""So many distinct numbers of a column are compared; of more, the rest is believed to differ."""


@dataclass(slots=True)
class Column:
    """What the cells of a column have in common, gathered cell by cell."""

    name: str
    filled: int = 0
    point: bool = True
    comma: bool = True
    boolean: bool = True
    day_first: bool = True
    month_first: bool = True
    slashed: int = 0
    _seen: dict[str, dict[float, str]] = field(default_factory=lambda: {"point": {}, "comma": {}})

    def __post_init__(self) -> None:
        if _DIGIT_NAMES.search(plain(self.name)) or self.name.strip().casefold() in {"id", "_id", "no", "nr"}:
            self.point = self.comma = False

    def add(self, cell: str) -> None:
        """Look at a cell; empty ones say nothing."""
        cell = cell.strip()
        if not cell:
            return
        self.filled += 1
        if self.boolean and cell.casefold() not in {"true", "false"}:
            self.boolean = False
        if self.point:
            self.point = bool(_PLAIN.fullmatch(cell) or _POINT.fullmatch(cell)) and self._new("point", cell)
        if self.comma:
            self.comma = bool(_COMMA.fullmatch(cell)) and self._new("comma", cell)
        if slashed := _SLASHED.fullmatch(cell):
            self.slashed += 1
            self.day_first &= int(slashed[2]) <= 12
            self.month_first &= int(slashed[1]) <= 12

    def _new(self, style: str, cell: str) -> bool:
        """Whether no other cell of the column would become the same number."""
        seen, number = self._seen[style], _number(cell, style)
        if number in seen:
            return seen[number] == cell
        if len(seen) < _MOST_VALUES:
            seen[number] = cell
        return True

    def convert(self) -> Callable[[str], Any]:
        """The function that turns the column's cells into values; None for empty ones."""
        if self.filled and (self.point or self.comma):
            style = "point" if self.point else "comma"
            return lambda cell: _number(cell.strip(), style) if cell.strip() else None
        if self.filled and self.boolean:
            return lambda cell: cell.strip().casefold() == "true" if cell.strip() else None
        order = "" if not self.slashed or self.day_first == self.month_first else "d" if self.day_first else "m"
        return lambda cell: _date(cell, order) if cell.strip() else None


def _number(cell: str, style: str) -> int | float:
    drop, point = (". ", ",") if style == "comma" else (",", ".")
    cell = cell.translate({ord(char): None for char in drop}).replace(point, ".")
    return float(cell) if "." in cell else int(cell)


def _date(cell: str, order: str) -> str:
    """A date in ISO form: of `31.12.2024`, and of `12/31/2024` if the column shows which number is the month."""
    text = cell.strip()
    found, day, month = _DOTTED.fullmatch(text), 1, 2
    if not found and order:
        found = _SLASHED.fullmatch(text)
        day, month = (1, 2) if order == "d" else (2, 1)
    if found:
        try:
            return dt.date(int(found[3]), int(found[month]), int(found[day])).isoformat()
        except ValueError:
            return cell
    return cell
