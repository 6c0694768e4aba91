"""Requests to OpenSearch, as data."""

from __future__ import annotations

import ipaddress
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opensearchpy.exceptions import ConnectionError as OpenSearchConnectionError
from opensearchpy.exceptions import TransportError

from hyblink.app.core.errors import ConflictError, StorageFullError, UnavailableError, WriterConflictError
from hyblink.app.core.filters import parse_filter
from hyblink.app.core.process import has_died, new_owner
from hyblink.app.core.settings import OpenSearchSettings
from hyblink.app.core.types.arrays import TermWeights
from hyblink.app.engines.opensearch import layout
from hyblink.app.engines.opensearch import query_builder as build
from hyblink.app.engines.opensearch.client import Cluster, _parts, translate


def test_filters() -> None:
    tree = parse_filter(
        {"and": [{"term": {"kind": "class"}}, {"not": {"range": {"line": {"gt": 3, "lte": 9}}}}, {"exists": "module"}]}
    )
    assert build.filter_clause(tree) == {
        "bool": {
            "filter": [
                {"terms": {"facets": ["kind\x1f$class"]}},
                {"bool": {"must_not": [{"range": {"numbers": {
                    "gt": build.number_address("line", 3), "lte": build.number_address("line", 9)}}}]}},
                {"term": {"keys": "module"}},
            ]
        }
    }  # fmt: skip


def test_values_that_print_alike_are_kept_apart() -> None:
    values = ["3", 3, "3.0", True, "true ", "x" * 5000, "x" * 5001]
    assert len({build.facet("k", value) for value in values}) == len(values)
    assert build.facet("k", 3) == build.facet("k", 3.0)
    assert build.facet("k", True) == build.facet("k", "true")
    assert len(build.facet("k", "x" * 100_000)) < 100


def test_metadata_is_indexed_by_families() -> None:
    fields = build.metadata_fields({"n": 3, "day": "1970-01-02", "tags": ["a", "b"], "none": []})
    assert fields["keys"] == ["n", "day", "tags"]
    assert fields["facets"] == ["n\x1f#3.0", "day\x1f$1970-01-02", "tags\x1f$a", "tags\x1f$b"]
    assert fields["numbers"] == [build.number_address("n", 3), build.number_address("day", 86400)]


@given(st.lists(st.floats(allow_nan=False), min_size=2, max_size=8), st.text(), st.text())
def test_number_addresses_are_ordered_as_the_numbers_and_apart_by_key(
    numbers: list[float], key: str, other: str
) -> None:
    addresses = [int(ipaddress.IPv6Address(build.number_address(key, number))) for number in numbers]
    for a, x in zip(addresses, numbers, strict=True):
        for b, y in zip(addresses, numbers, strict=True):
            assert (a < b, a == b) == (x < y, x == y)
    if key != other:
        assert (
            len(
                {address >> 64 for address in addresses}
                | {int(ipaddress.IPv6Address(build.number_address(other, 0.0))) >> 64}
            )
            == 2
        )


def test_repeated_terms_count_and_clauses_are_limited() -> None:
    clauses = build.bm25_query(["a", "b", "a"])["bool"]["should"]
    assert clauses == [{"term": {"content": {"value": "a", "boost": 2.0}}}, {"term": {"content": {"value": "b"}}}]
    assert (
        len(build.bm25_query([f"t{n}" for n in range(5000)])["bool"]["should"])
        == build.budget(None)
        < build.MAX_CLAUSES
    )
    assert build.budget(parse_filter({"and": [{"not": {"exists": "a"}}, {"range": {"n": {"gt": 1}}}]})) == 1024 - 16 - 8
    weights = TermWeights(np.arange(2000, dtype=np.int32), np.linspace(1, 2, 2000).astype(np.float32))
    kept = build.sparse_query(weights, "vdr")["bool"]["should"]
    assert len(kept) == build.budget(None)
    assert kept[0]["rank_feature"] == {"field": "vdr.1999", "boost": 2.0, "linear": {}}


def test_bulk_requests_are_bounded() -> None:
    actions = [({"index": {"_id": str(n)}}, {"text": "x" * 100}) for n in range(10)] + [
        ({"delete": {"_id": "z"}}, None)
    ]
    parts = list(_parts(actions, 300))
    assert [len(part) for part in parts] == [2, 2, 2, 2, 3]
    assert b"".join(parts[-1]).count(b"\n") == 5
    assert [len(part) for part in _parts(actions[:2], 1)] == [1, 1]


def test_errors_are_ours() -> None:
    assert isinstance(translate(TransportError(409, "conflict", {})), ConflictError)
    full = TransportError(429, "cluster_block_exception", {"error": "disk usage exceeded flood-stage watermark"})
    assert isinstance(translate(full), StorageFullError)
    assert isinstance(translate(OpenSearchConnectionError("N/A", "refused", OSError("refused"))), UnavailableError)


def cluster(**settings: Any) -> Cluster:
    return Cluster(OpenSearchSettings(**settings))


def test_a_busy_cluster_is_asked_again_and_a_broken_request_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    made = cluster(retries=3)
    monkeypatch.setattr(made, "_pause", lambda _: None)
    asked = []

    def busy_twice() -> str:
        asked.append(1)
        if len(asked) < 3:
            raise TransportError(429, "too many requests", {})
        return "done"

    assert made.call(busy_twice) == "done"
    assert len(asked) == 3
    asked.clear()

    def broken() -> str:
        asked.append(1)
        raise TransportError(400, "parsing_exception", {})

    with pytest.raises(UnavailableError, match="400"):
        made.call(broken)
    assert len(asked) == 1


def test_items_that_were_too_much_are_sent_again_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    made = cluster(retries=2)
    monkeypatch.setattr(made, "_pause", lambda _: None)
    sent: list[list[str]] = []

    def bulk(method: str, path: str, body: bytes) -> dict[str, Any]:
        assert (method, path) == ("POST", "/_bulk?require_alias=true&timeout=5s")
        names = [json.loads(line)["index"]["_id"] for line in body.splitlines()[::2]]
        sent.append(names)
        status = {"busy": 429 if len(sent) == 1 else 201, "bad": 400}
        return {
            "items": [
                {"index": {"_index": "i", "_id": name, "status": status.get(name, 201)}
                 | ({"error": {"type": "t", "reason": "r"}} if status.get(name, 201) >= 400 else {})}
                for name in names
            ]
        }  # fmt: skip

    monkeypatch.setattr(made.client.transport, "perform_request", bulk)
    refused = made.bulk([({"index": {"_id": name}}, {}) for name in ("good", "busy", "bad")])
    assert sent == [["good", "busy", "bad"], ["busy"]]
    assert [(one.item_id, one.status) for one in refused] == [("bad", 400)]


def test_a_writer_whose_term_is_over_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    made = cluster()
    reason = "no such index [p-w1] and [require_alias] request flag is [true] and [p-w1] is not an alias"
    item = {"_index": "p-w1", "_id": "1", "status": 404, "error": {"type": "index_not_found", "reason": reason}}
    monkeypatch.setattr(made.client.transport, "perform_request", lambda *_, **__: {"items": [{"index": item}]})
    with pytest.raises(WriterConflictError, match="taken over"):
        made.bulk([({"index": {"_index": "p-w1", "_id": "1"}}, {})])


def test_what_belongs_to_a_change() -> None:
    assert layout.is_visible({"change": 3}, 3)
    assert not layout.is_visible({"change": 4}, 3)
    assert layout.is_visible({"change": 1, "removed": 4}, 3)
    assert not layout.is_visible({"change": 1, "removed": 3}, 3)
    assert layout.is_visible({"change": 1, "removed": None}, 3)


def test_an_owner_is_known_to_be_dead_only_on_its_own_host() -> None:
    owner = new_owner()
    assert not has_died(owner)
    host, pid, started, number = owner.split(" ")
    assert has_died(f"{host} {pid} {float(started) - 5:.2f} {number}"), "the process id has been given out again"
    assert has_died(f"{host} 4194305 {started} {number}")
    assert not has_died(f"elsewhere/1 {pid} {float(started) - 5:.2f} {number}")
    assert not has_died("something else")


@pytest.mark.parametrize(
    ("info", "accepted"),
    [
        ({"distribution": "opensearch", "number": "3.8.0"}, True),
        ({"distribution": "opensearch", "number": "2.19.6"}, False),
        ({"number": "8.1.0"}, False),
    ],
)
def test_servers_that_score_otherwise_are_refused(
    info: dict[str, str], accepted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = cluster()
    monkeypatch.setattr(made.client, "info", lambda: {"version": info})
    if accepted:
        assert made.check_version() == (3, 8, 0)
    else:
        with pytest.raises(UnavailableError, match="3.0 or newer") as error:
            made.check_version()
        assert info["number"] in str(error.value)
