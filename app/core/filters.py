"""Metadata filters: a small tree, parsed once and compiled by each engine.

The JSON form, as clients send it::

    {"term":   {"kind": "function"}}
    {"terms":  {"module": ["json", "csv"]}}
    {"range":  {"line": {"gte": 10, "lt": 200}}}          numbers, or ISO dates
    {"exists": "module"}
    {"and": [...]}   {"or": [...]}   {"not": {...}}
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hyblink.app.core.checks import check_text
from hyblink.app.core.errors import InvalidInputError
from hyblink.app.core.types.documents import Metadata, MetaScalar, MetaValue

MAX_CLAUSES = 256
MAX_DEPTH = 16
MAX_VALUES = 10_000
_FORM = '{"term": {key: value}}, "terms", "range", "exists", "and", "or" or "not"'


@dataclass(frozen=True, slots=True)
class Terms:
    """The key has one of the values (a list matches if any element does)."""

    key: str
    values: tuple[MetaScalar, ...]


@dataclass(frozen=True, slots=True)
class Range:
    """The key's number (or date, as seconds since 1970) lies between the bounds; None leaves a side open."""

    key: str
    low: float | None
    high: float | None
    low_inclusive: bool = True
    high_inclusive: bool = True


@dataclass(frozen=True, slots=True)
class Exists:
    """The key is present, whatever its value."""

    key: str


@dataclass(frozen=True, slots=True)
class And:
    clauses: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Or:
    clauses: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Not:
    clause: Filter


Filter = Terms | Range | Exists | And | Or | Not


def seconds(value: dt.date | dt.datetime) -> float:
    """A date as seconds since 1970, UTC; a datetime without zone is taken as UTC."""
    if not isinstance(value, dt.datetime):
        value = dt.datetime(value.year, value.month, value.day, tzinfo=dt.UTC)
    if value.tzinfo is None:
        value = value.replace(tzinfo=dt.UTC)
    return value.timestamp()


def parse_date(text: str) -> dt.datetime | dt.date | None:
    """An ISO date or datetime, or None where the text is none.

    >>> parse_date("2024-02-29"), parse_date("2024")
    (datetime.date(2024, 2, 29), None)
    """
    if len(text) < 10 or text[4] != "-" or not text[:4].isdigit():
        return None
    try:
        return dt.date.fromisoformat(text) if len(text) == 10 else dt.datetime.fromisoformat(text)
    except ValueError:
        return None


def _key(value: object) -> str:
    key = check_text(value, "filter key")
    if not key or len(key) > 256:
        raise InvalidInputError("bad filter key", received=value, expected="1 to 256 characters")
    return key


def _value(value: object) -> MetaScalar:
    if isinstance(value, bool | int | str):
        if isinstance(value, str):
            check_text(value, "filter value")
        elif abs(value) > 2**63 - 1:
            raise InvalidInputError("filter value is out of range", received=value, expected="a 64-bit integer")
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise InvalidInputError("bad filter value", received=value, expected="a string, finite number or boolean")


def _bound(value: object) -> float:
    if isinstance(value, str):
        date = parse_date(value)
        if date is not None:
            return seconds(date)
    elif isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e308:
        return float(value)
    raise InvalidInputError("bad range bound", received=value, expected="a finite number or an ISO date")


def _range(body: object) -> Range:
    key, bounds = _single(body, "range")
    if not isinstance(bounds, Mapping) or not bounds or set(bounds) - {"gt", "gte", "lt", "lte"}:
        raise InvalidInputError("bad range", received=bounds, expected='bounds such as {"gte": 1, "lt": 9}')
    if {"gt", "gte"} <= set(bounds) or {"lt", "lte"} <= set(bounds):
        raise InvalidInputError("a range has two bounds on one side", received=bounds, expected="one of each")
    low = next((_bound(bounds[name]) for name in ("gt", "gte") if name in bounds), None)
    high = next((_bound(bounds[name]) for name in ("lt", "lte") if name in bounds), None)
    return Range(key, low, high, "gt" not in bounds, "lt" not in bounds)


def _single(body: object, name: str) -> tuple[str, Any]:
    if not isinstance(body, Mapping) or len(body) != 1:
        raise InvalidInputError(f"bad {name} filter", received=body, expected="an object with one key")
    key, value = next(iter(body.items()))
    return _key(key), value


def parse_filter(tree: object) -> Filter:
    """The filter that a JSON tree means. Raises InvalidInputError, naming the part that is wrong."""
    count = 0

    def clauses(body: object, name: str, depth: int) -> tuple[Filter, ...]:
        if not isinstance(body, list) or not body:
            raise InvalidInputError(f"bad {name} filter", received=body, expected="a list of filters, not empty")
        return tuple(parse(item, depth + 1) for item in body)

    def parse(node: object, depth: int) -> Filter:
        nonlocal count
        count += 1
        if count > MAX_CLAUSES or depth > MAX_DEPTH:
            raise InvalidInputError(
                "the filter is too large", expected=f"at most {MAX_CLAUSES} clauses, {MAX_DEPTH} levels"
            )
        if not isinstance(node, Mapping) or len(node) != 1:
            raise InvalidInputError("bad filter", received=node, expected=_FORM)
        name, body = next(iter(node.items()))
        match name:
            case "term":
                key, value = _single(body, "term")
                return Terms(key, (_value(value),))
            case "terms":
                key, values = _single(body, "terms")
                if not isinstance(values, list) or not 0 < len(values) <= MAX_VALUES:
                    raise InvalidInputError("bad terms filter", received=values, expected=f"1 to {MAX_VALUES} values")
                return Terms(key, tuple(_value(value) for value in values))
            case "range":
                return _range(body)
            case "exists":
                return Exists(_key(body))
            case "and":
                return And(clauses(body, "and", depth))
            case "or":
                return Or(clauses(body, "or", depth))
            case "not":
                return Not(parse(body, depth + 1))
        raise InvalidInputError("unknown filter", received=name, expected=_FORM)

    return parse(tree, 1)


def facets_of(value: MetaValue) -> list[tuple[str | None, float | None]]:
    """How a value is indexed: pairs of (string form, number form). Booleans are the strings `true`/`false`.

    >>> facets_of(True), facets_of(3), facets_of(["a", "b"])
    ([('true', None)], [(None, 3.0)], [('a', None), ('b', None)])
    """
    if isinstance(value, bool):
        return [("true" if value else "false", None)]
    if isinstance(value, int | float):
        return [(None, float(value))]
    if isinstance(value, dt.date):
        return [(value.isoformat(), seconds(value))]
    if isinstance(value, list):
        return [(item, None) for item in value]
    date = parse_date(value)
    return [(value, seconds(date) if date is not None else None)]


def matches(tree: Filter, metadata: Metadata) -> bool:
    """Whether a document with this metadata passes the filter: the definition that engines are tested against."""
    match tree:
        case Terms(key, values):
            if key not in metadata:
                return False
            wanted = {_as_indexed(value) for value in values}
            return any(
                (text is not None and text in wanted) or (text is None and number in wanted)
                for text, number in facets_of(metadata[key])
            )
        case Range(key, low, high, low_inclusive, high_inclusive):
            if key not in metadata:
                return False
            for _, number in facets_of(metadata[key]):
                if number is None:
                    continue
                above = low is None or number > low or (low_inclusive and number == low)
                below = high is None or number < high or (high_inclusive and number == high)
                if above and below:
                    return True
            return False
        case Exists(key):
            return key in metadata and metadata[key] != []
        case And(clauses):
            return all(matches(clause, metadata) for clause in clauses)
        case Or(clauses):
            return any(matches(clause, metadata) for clause in clauses)
        case Not(clause):
            return not matches(clause, metadata)


def _as_indexed(value: MetaScalar) -> str | float:
    if isinstance(value, bool):
        return "true" if value else "false"
    return float(value) if isinstance(value, int | float) else value


def check_metadata(metadata: object) -> dict[str, MetaValue]:
    """A document's metadata, checked: flat, short keys, finite numbers, lists of strings only.

    Dates stay strings in ISO form and are recognised by their shape, so that JSON round trips keep them.
    """
    if not isinstance(metadata, Mapping):
        raise InvalidInputError("metadata has the wrong type", received=metadata, expected="an object")
    if len(metadata) > MAX_CLAUSES:
        raise InvalidInputError("too many metadata keys", received=len(metadata), expected=f"at most {MAX_CLAUSES}")
    checked: dict[str, MetaValue] = {}
    for key, value in metadata.items():
        _key(key)
        if isinstance(value, dt.date):
            checked[key] = value.isoformat()
        elif isinstance(value, list):
            if len(value) > MAX_VALUES:
                raise InvalidInputError(f"metadata {key!r} is too long", expected=f"at most {MAX_VALUES} values")
            checked[key] = [check_text(item, f"an item of metadata {key!r}") for item in value]
        elif value is not None:
            try:
                checked[key] = _value(value)
            except InvalidInputError as error:
                raise InvalidInputError(
                    f"metadata {key!r} has the wrong type",
                    received=value,
                    expected="a string, finite number, boolean, date or list of strings",
                ) from error
    return checked
