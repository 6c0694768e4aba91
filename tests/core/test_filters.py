"""Filters: what passes, what is refused."""

from __future__ import annotations

import pytest

from hyblink.app.core.errors import (
    InvalidInputError,
)
from hyblink.app.core.filters import And, Exists, Not, Range, Terms, check_metadata, matches, parse_filter

META = {"kind": "function", "line": 12, "tags": ["a", "b"], "day": "2024-05-01", "ok": True, "none": []}


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        ({"term": {"kind": "function"}}, True),
        ({"term": {"kind": "class"}}, False),
        ({"terms": {"tags": ["b", "z"]}}, True),
        ({"term": {"ok": True}}, True),
        ({"term": {"line": 12}}, True),
        ({"range": {"line": {"gt": 12}}}, False),
        ({"range": {"line": {"gte": 12, "lt": 13}}}, True),
        ({"range": {"day": {"gte": "2024-01-01", "lt": "2025-01-01"}}}, True),
        ({"range": {"kind": {"gte": 0}}}, False),
        ({"exists": "tags"}, True),
        ({"exists": "none"}, False),
        ({"not": {"exists": "line"}}, False),
        ({"and": [{"exists": "line"}, {"not": {"term": {"kind": "class"}}}]}, True),
        ({"or": [{"term": {"kind": "class"}}, {"range": {"line": {"lte": 12}}}]}, True),
    ],
)
def test_filters(tree: object, expected: bool) -> None:
    assert matches(parse_filter(tree), META) is expected


@pytest.mark.parametrize(
    "tree",
    [
        {}, [], "x", 3, {"term": {}}, {"term": {"a": None}}, {"term": {"a": float("nan")}}, {"terms": {"a": []}},
        {"range": {"a": {}}}, {"range": {"a": {"gt": 1, "gte": 2}}}, {"range": {"a": {"gte": "soon"}}},
        {"range": {"a": {"gte": float("inf")}}}, {"range": {"a": {"near": 1}}}, {"exists": ""}, {"and": []},
        {"and": {}}, {"like": {"a": "b"}}, {"term": {"a": "b"}, "exists": "c"}, {"term": {"a": "\x00"}},
    ],
)  # fmt: skip
def test_bad_filters_are_refused(tree: object) -> None:
    with pytest.raises(InvalidInputError, match="expected"):
        parse_filter(tree)


def test_a_filter_may_not_be_too_deep() -> None:
    tree: dict[str, object] = {"exists": "a"}
    for _ in range(40):
        tree = {"not": tree}
    with pytest.raises(InvalidInputError, match="too large"):
        parse_filter(tree)


def test_parsed_filters_are_trees() -> None:
    tree = parse_filter({"and": [{"term": {"a": 1}}, {"not": {"exists": "b"}}, {"range": {"c": {"lt": 2}}}]})
    assert tree == And((Terms("a", (1,)), Not(Exists("b")), Range("c", None, 2.0, True, False)))


@pytest.mark.parametrize(
    "value", [{"a": {"b": 1}}, {"a": [1]}, {"a": float("nan")}, {"": 1}, {"a": 2**70}, {"a": "\x00"}]
)
def test_bad_metadata_is_refused(value: object) -> None:
    with pytest.raises(InvalidInputError):
        check_metadata(value)
