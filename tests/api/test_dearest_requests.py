"""Hypothesis looks for the dearest requests that a `search` key may send, and finds none above its budget.

Its search is led by what each request cost in CPU time and memory. `make soak` tries 2,000.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, target
from hypothesis import strategies as st
from support.dearest import SHARED, Measured, Request, Size, prepare, service

SIZE = Size(documents=300, long=8, sharing=1000, entities=500)
TRIES = 2000
MANY = st.integers(1, 3000)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Measured]:
    folder = prepare(tmp_path_factory.mktemp("dearest") / "data", SIZE)
    with service(folder) as running:
        yield running


def _repeated(word: str, times: int, between: str, most: int) -> str:
    return (between.join([word] * times))[:most] or "a"


def _texts(most: int) -> st.SearchStrategy[str]:
    """Texts that are dear by their length, by their words, or by their signs."""
    words = st.sampled_from(
        [SHARED, "word1", "Name1 Other", "Thing1", "_", "-", "a" * 300, "e\u0301", "漢字", "🏳️‍🌈", "C++", "'", "x.y.z"]
    )
    repeated = st.builds(_repeated, words, MANY, st.sampled_from(["", " ", ", ", "\n"]), st.just(most))
    numbered = st.builds(
        lambda word, count: " ".join(f"{word}{at}" for at in range(count))[:most],
        st.sampled_from(["word", "Thing", "Name"]), MANY,
    )  # fmt: skip
    return st.one_of(repeated, numbered, st.text(min_size=1, max_size=min(most, 200)).filter(lambda text: text.strip()))


FILTERS = st.one_of(
    st.none(),
    st.builds(
        lambda count, no: ({"not": found} if no else found) if (found := _terms(count)) else None,
        st.integers(1, 9000),
        st.booleans(),
    ),
    st.builds(lambda depth: _nested(depth), st.integers(1, 14)),
)


def _terms(count: int) -> dict[str, Any]:
    return {"terms": {"kind": [f"k{at}" for at in range(count)]}}


def _nested(depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {"term": {"kind": "k1"}}
    for _ in range(depth):
        found = {"not": {"or": [found, {"exists": "kind"}]}}
    return found


SEARCHES = st.fixed_dictionaries(
    {
        "query": _texts(8192),
        "collection": st.sampled_from(["default", "whole"]),
        "k": st.integers(1, 2000),
        "explain": st.booleans(),
        "highlight": st.booleans(),
        "passages_per_document": st.integers(1, 20),
        "facets": st.lists(st.sampled_from(["kind", "a", "b", "c"]), max_size=4, unique=True),
        "fusion": st.sampled_from(["weighted_sum", "rrf", "comb_mnz", "isr"]),
        "filter": FILTERS,
    }
).map(lambda body: {**body, "candidates": 2000})
LEXICAL = st.builds(
    lambda body, signals: Request("/v1/search", {**body, "signals": signals, "vdr": "bag"}),
    SEARCHES, st.sampled_from([["bm25"], ["vdr"], ["bm25", "vdr"]]),
)  # fmt: skip
RERANKED = st.builds(
    lambda body, top, ms: Request("/v1/search", {**body, "rerank": {"top": top, "budget_ms": ms}}, dear=True),
    SEARCHES, st.integers(1, 200), st.integers(100, 10_000),
)  # fmt: skip
LINKS = st.builds(
    lambda text, count, shown, rerank, coherence, detectors: Request(
        "/v1/link",
        {
            "texts": [text] * count, "shown": shown, "candidates": 256, "rerank": rerank, "budget_ms": 600_000,
            "coherence": coherence, "detectors": detectors,
        },
        dear=True,
    ),
    _texts(20_000), st.integers(1, 300), st.integers(0, 256), st.booleans(), st.sampled_from([0.0, 1.0]),
    st.sampled_from([["dictionary"], ["elq"], ["dictionary", "elq"]]),
)  # fmt: skip
VOCABULARIES = st.builds(
    lambda text, passage: Request("/v1/vocabulary", {"text": text, "passage": passage, "top": 500}, dear=True),
    _texts(20_000), _texts(20_000),
)  # fmt: skip
WHY_NOTS = st.builds(
    lambda body, at: Request(
        "/v1/explain",
        {**{key: body[key] for key in ("query", "candidates", "filter", "fusion")}, "document_id": f"d{at}"},
        dear=True,
    ),
    SEARCHES, st.integers(0, 20),
)  # fmt: skip


EVERY = st.one_of(LEXICAL, LEXICAL, RERANKED, LINKS, VOCABULARIES, WHY_NOTS)


def _is_within_its_budget(measured: Measured, request: Request) -> None:
    cost = measured.cost(request)
    target(cost.cpu_s, label=f"CPU-seconds of {request.path}{' with models' if request.dear else ''}")
    target(cost.memory / 1e6, label=f"MB of {request.path}")
    assert cost.status in {200, 400, 413, 422}, cost
    assert cost.cpu_s <= (11 if request.dear else 2.2), cost
    assert cost.memory <= (400e6 if request.dear else 200e6), cost


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(request=EVERY)
def test_no_request_costs_more_than_its_budget(measured: Measured, request: Request) -> None:
    _is_within_its_budget(measured, request)


@pytest.mark.soak
@pytest.mark.timeout(7200)
@settings(max_examples=TRIES, deadline=None, suppress_health_check=list(HealthCheck))
@given(request=EVERY)
def test_no_request_of_2000_costs_more_than_its_budget(measured: Measured, request: Request) -> None:
    _is_within_its_budget(measured, request)
