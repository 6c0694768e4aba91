"""The plugin under attack: requests that no client of ours sends, requests as large as they may be, no memory left."""

from __future__ import annotations

import copy
import json
import random
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from support.opensearch_faults import AppMaker, make_cluster_app, one_node  # noqa: F401 - a fixture
from support.services import SOAK

from hyblink.app.core.errors import UnavailableError
from hyblink.app.core.types.collections import CollectionSpec
from hyblink.app.core.types.search import SearchRequest
from hyblink.app.engines.opensearch.local.cluster import Cluster
from hyblink.app.operations.collections import ensure_collection

pytestmark = pytest.mark.services
TRIES = 20_000 if SOAK else 1_500
ASKED: dict[str, Any] = {
    "size": 5,
    "filter": {"match_all": {}},
    "signals": {"bm25": {"match_all": {}}, "vdr": {"vdr": {"field": "bag", "weights": {"12": 1.5, "2054": 0.7}}}},
    "candidates": [1, 2, 3],
    "limit_ms": 2000,
    "own_statistics": False,
}
COUNTED: dict[str, Any] = {"filter": {"match_all": {}}, "count": {"bag": ["12", "2054"]}}
ODD: list[Any] = [
    None, True, "", "x" * 5000, -1, 0, 2**31, 2**63, 2**64, -(2**63), 1e308, 1e-45, 10**30, [], {}, [[]], [{}],
    {"vdr": {}}, {"vdr": {"field": "row", "weights": {"1": 1}}}, {"vdr": {"field": "bag", "weights": {"": 1e38}}},
    {"vdr": {"field": "bag", "weights": {"1": -1}}}, {"term": {"row": "x"}}, {"script": {"script": "1"}}, "\ud800",
    {"regexp": {"words": "(a+)+$"}}, {"bool": {"must": [{"bool": {"must": []}}]}}, {"nested": {}}, "NaN",
]  # fmt: skip


@pytest.fixture
def index(local_cluster: Callable[..., Cluster], make_cluster_app: AppMaker) -> tuple[Any, str]:
    """An application whose collection has 300 passages, and the address of their index."""
    url = one_node(local_cluster)
    app = make_cluster_app((url,), retries=1, longest_pause_s=0.1)
    ensure_collection(app, CollectionSpec("c"))
    app.documents.bulk("c", [{"id": f"d{n}", "text": f"alpha beta{n % 7}"} for n in range(300)], encode=False)
    assert app.search.search("c", SearchRequest("alpha")).hits
    engine = app.catalog.engine("c")
    return app, f"{url}/{engine.store.reader().names.passages}/_hyblink/complete"


def mutated(draw: random.Random) -> bytes:
    """A valid request with some of its parts replaced, removed, doubled or cut."""
    body = copy.deepcopy(draw.choice([ASKED, COUNTED]))
    for _ in range(draw.randint(1, 3)):
        where: Any = body
        while isinstance(where, dict | list) and where:
            key = draw.choice(list(where) if isinstance(where, dict) else range(len(where)))
            inner = where[key]
            if not isinstance(inner, dict | list) or not inner or draw.random() < 0.4:
                if draw.random() < 0.2 and isinstance(where, dict):
                    where[draw.choice(["size", "row", "count", "signals", "candidates", "more"])] = where.pop(key)
                else:
                    where[key] = copy.deepcopy(draw.choice(ODD))
                break
            where = inner
    data = json.dumps(body).encode()
    if draw.random() < 0.2:
        data = data[: draw.randint(0, len(data))]
    if draw.random() < 0.1:
        at = draw.randrange(len(data) + 1)
        data = data[:at] + draw.randbytes(3) + data[at:]
    return data


def test_no_request_is_answered_by_a_fault(index: tuple[Any, str]) -> None:
    _, address = index
    draw = random.Random(3)
    seen: dict[int, int] = {}
    with httpx.Client(timeout=30, headers={"content-type": "application/json"}) as client:
        right = client.post(address, json=ASKED).json()
        assert right["_shards"]["failed"] == 0
        assert len(right["rows"]) > 0
        for _ in range(TRIES):
            data = mutated(draw)
            begun = time.monotonic()
            answer = client.post(address, content=data)
            took = time.monotonic() - begun
            seen[answer.status_code] = seen.get(answer.status_code, 0) + 1
            assert answer.status_code in {200, 400, 404, 413, 429}, (data[:2000], answer.text[:2000])
            assert took < 10, data[:2000]
        assert {200, 400} <= set(seen), seen
        assert client.post(address, json=ASKED).json()["rows"] == right["rows"]
    print(seen)


def test_the_largest_requests_are_answered_or_refused_by_name(index: tuple[Any, str]) -> None:
    app, address = index
    heap = address.split("/", 3)
    stats = f"{heap[0]}//{heap[2]}/_nodes/stats/breaker,jvm"
    many = {str(n): 1.0 for n in range(32_768)}
    with httpx.Client(timeout=60) as client:
        for changes, expected in (
            ({"size": 10_001}, "expected 0 to 10000"),
            ({"candidates": list(range(20_001))}, "at most 20000 candidates"),
            ({"signals": {f"s{n}": {"match_all": {}} for n in range(9)}}, "expected 1 to 8"),
            ({"signals": {"vdr": {"vdr": {"field": "bag", "weights": {**many, "x": 1.0}}}}}, "at most 32768 tokens"),
            ({"limit_ms": 0}, "expected at least 1"),
        ):
            answer = client.post(address, json={**ASKED, **changes})
            assert (answer.status_code, expected in answer.text) == (400, True), answer.text[:500]
        largest = {
            "size": 10_000,
            "candidates": list(range(20_000)),
            "signals": {f"s{n}": {"vdr": {"field": "bag", "weights": many}} for n in range(8)},
            "limit_ms": 20_000,
        }
        for _ in range(20 if SOAK else 1):
            answer = client.post(address, json=largest)
            assert answer.status_code in {200, 429}, answer.text[:500]
        nodes = client.get(stats).json()["nodes"].values()
        assert all(node["breakers"]["request"]["estimated_size_in_bytes"] == 0 for node in nodes), "all was given back"
    assert app.search.search("c", SearchRequest("alpha")).hits


def test_no_memory_left_is_said_by_name_and_passes(index: tuple[Any, str]) -> None:
    """The node's circuit breaker refuses; the search says so, and the next one finds what it should."""
    app, address = index
    settings = f"{address.split('/', 3)[0]}//{address.split('/', 3)[2]}/_cluster/settings"

    def limit(value: str | None) -> None:
        httpx.put(settings, json={"transient": {"indices.breaker.request.limit": value}}).raise_for_status()

    before = [hit.doc_id for hit in app.search.search("c", SearchRequest("alpha beta3", k=5)).hits]
    limit("1b")
    try:
        answer = httpx.post(address, json=ASKED, timeout=30)
        assert answer.status_code in {200, 429}
        if answer.status_code == 200:
            assert "circuit_breaking_exception" in answer.text
        with pytest.raises(UnavailableError, match="Data too large"):
            app.search.search("c", SearchRequest("alpha beta4", k=5))
    finally:
        limit(None)
    assert [hit.doc_id for hit in app.search.search("c", SearchRequest("alpha beta3", k=5)).hits] == before
