"""Every engine against arithmetic done the slow way, on random documents, with deletes and updates."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from itertools import count

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.documents import WORDS, byte_length, random_documents
from support.services import SOAK

from hyblink.app.analysis.analyzer import Analyzer
from hyblink.app.application import App
from hyblink.app.core.filters import matches, parse_filter
from hyblink.app.core.types.collections import CollectionSpec
from hyblink.app.core.types.ranking import DEFAULT_SIGNALS, Signal
from hyblink.app.core.types.search import SearchRequest
from hyblink.app.operations.collections import ensure_collection
from hyblink.app.operations.encoding import encode_now

ANALYZER = Analyzer("english")
HISTORIES = 100 if SOAK else 20


def fill(app: App, documents: list[dict], name: str) -> None:
    ensure_collection(app, CollectionSpec(name, chunk_chars=0, chunk_overlap_chars=0))
    assert not app.documents.bulk(name, documents, encode=False).errors
    encode_now(app, name)
    # What was replaced stays in an engine's BM25 statistics until it is merged away.
    app.catalog.engine(name).compact(patience_s=90)


def contents(documents: list[dict]) -> dict[str, str]:
    return {d["id"]: f"{d['title']}\n{d['text']}" if d["title"] else d["text"] for d in documents}


def bm25(query: str, texts: dict[str, str]) -> dict[str, float]:
    """Lucene's BM25 (k1 = 1.2, b = 0.75, idf = ln(1 + (N - df + .5) / (df + .5)), length rounded to one byte)."""
    tokens = {doc: ANALYZER.terms(text) for doc, text in texts.items()}
    average = sum(map(len, tokens.values())) / len(tokens)
    frequency = Counter(term for terms in tokens.values() for term in set(terms))
    scores = dict.fromkeys(texts, 0.0)
    for term in ANALYZER.terms(query):
        idf = math.log(1 + (len(texts) - frequency[term] + 0.5) / (frequency[term] + 0.5))
        for doc, terms in tokens.items():
            tf = terms.count(term)
            if tf:
                norm = 1.2 * (1 - 0.75 + 0.75 * byte_length(len(terms)) / average)
                scores[doc] += idf * tf / (tf + norm)
    return scores


@pytest.fixture(scope="module")
def filled(make_lasting_app: Callable[..., App]) -> tuple[App, list[dict]]:
    app = make_lasting_app()
    documents = random_documents(400, seed=1)
    fill(app, documents, "c")
    return app, documents


@pytest.mark.parametrize(
    "query", ["alpha beta", "gamma gamma delta", "omega", "the alpha of kappa sigma", "unknownword"]
)
def test_every_signal_of_every_candidate_is_exact(filled: tuple[App, list[dict]], query: str) -> None:
    """Complete scores equal brute force to 1e-4, for candidates that the leg itself did not propose too."""
    app, documents = filled
    texts = contents(documents)
    scores, found = app.search.pool("c", SearchRequest(query, k=1, candidates=15))
    assert len(scores.rows) >= 15
    encoder = app.encoders.default_dense
    bag = app.encoders.default_bag
    expected_bm25 = bm25(query, texts)
    query_vector = encoder.encode_query(query)
    query_tokens = set(bag.encode_query(query))
    bags = {
        doc: set(terms.ids.tolist())
        for doc, terms in zip(texts, bag.encode_passages(list(texts.values())), strict=True)
    }
    frequency = Counter(token for ids in bags.values() for token in ids)
    by_id = {d["id"]: d for d in documents}
    for column, doc in enumerate(found):
        for at, signal in enumerate(scores.signals):
            got = scores.raw_SC[at, column]
            if signal is Signal.BM25:
                assert got == pytest.approx(expected_bm25[doc], abs=1e-4)
            elif signal is Signal.VDR:
                weights = [
                    math.log1p((len(bags) - frequency[t] + 0.5) / (frequency[t] + 0.5))
                    for t in query_tokens & bags[doc]
                ]
                assert got == pytest.approx(sum(weights), rel=2**-8, abs=1e-4)
            else:
                vector = encoder.encode_passages([by_id[doc]["title"]], [by_id[doc]["text"]])[0]
                assert got == pytest.approx(
                    float(vector.astype(np.float16).astype(np.float32) @ query_vector), abs=1e-4
                )


def test_bm25_orders_like_brute_force(filled: tuple[App, list[dict]]) -> None:
    app, documents = filled
    for query in ["alpha beta", "gamma delta epsilon", "kappa"]:
        expected = {d: s for d, s in bm25(query, contents(documents)).items() if s > 0}
        request = SearchRequest(query, k=100, candidates=200, signals=(Signal.BM25,))
        got = [hit.doc_id for hit in app.search.search("c", request).hits]
        ordered = sorted(expected, key=lambda d: -expected[d])[: len(got)]
        assert [round(expected[d], 4) for d in got] == [round(expected[d], 4) for d in ordered]


def test_token_contributions_sum_to_the_signal(filled: tuple[App, list[dict]]) -> None:
    app, _ = filled
    result = app.search.search("c", SearchRequest("alpha beta beta gamma", explain=True))
    seen = 0
    for hit in result.hits:
        for passage in hit.passages:
            assert sum(line.contribution for line in passage.signals) == pytest.approx(passage.score, abs=1e-6)
            for line in passage.signals:
                if line.signal is not Signal.DENSE and line.raw:
                    seen += 1
                    assert sum(t.contribution for t in line.tokens) == pytest.approx(line.raw, abs=1e-4)
    assert seen > 10


filters = st.recursive(
    st.one_of(
        st.sampled_from(WORDS[:6]).map(lambda w: {"term": {"colour": w}}),
        st.lists(st.sampled_from(WORDS[:8]), min_size=1, max_size=3).map(lambda w: {"terms": {"tags": w}}),
        st.integers(0, 100).map(lambda n: {"term": {"size": n}}),
        st.tuples(st.integers(0, 100), st.integers(0, 100)).map(
            lambda p: {"range": {"size": {"gte": min(p), "lt": max(p)}}}
        ),
        st.integers(1, 28).map(lambda d: {"range": {"day": {"gt": f"2024-02-{d:02}"}}}),
        st.sampled_from(["colour", "tags", "size", "day", "nothing"]).map(lambda k: {"exists": k}),
        st.booleans().map(lambda b: {"term": {"flag": b}}),
    ),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda c: {"and": c}),
        st.lists(inner, min_size=1, max_size=3).map(lambda c: {"or": c}),
        inner.map(lambda c: {"not": c}),
    ),
    max_leaves=5,
)


@settings(max_examples=120 if SOAK else 60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(filters, st.sampled_from(["alpha beta", "gamma", "kappa sigma tau"]))
def test_filters_hold_in_every_leg(filled: tuple[App, list[dict]], tree: dict, query: str) -> None:
    """A filtered leg returns exactly the unfiltered leg's documents that match, in the same order."""
    app, documents = filled
    allowed = {d["id"] for d in documents if matches(parse_filter(tree), d["metadata"])}
    for signal in DEFAULT_SIGNALS:
        free = app.search.search("c", SearchRequest(query, k=500, candidates=500, signals=(signal,), highlight=False))
        kept = app.search.search(
            "c", SearchRequest(query, k=500, candidates=500, signals=(signal,), filter=tree, highlight=False)
        )
        assert [h.doc_id for h in kept.hits] == [h.doc_id for h in free.hits if h.doc_id in allowed]


fresh = count()
operations = st.lists(
    st.tuples(
        st.sampled_from(["put", "put", "delete", "encode", "search", "rebuild"]),
        st.integers(0, 11),
        st.integers(0, 10**6),
    ),
    min_size=1,
    max_size=14,
)


@settings(max_examples=HISTORIES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations)
def test_any_history_ends_in_the_model_state(
    make_app: Callable[..., App], operations: list[tuple[str, int, int]]
) -> None:
    """Upserts, deletes, encodings and rebuilds in any order: store and indexes hold what a dictionary would."""
    app = make_app(f"h{next(fresh)}")
    ensure_collection(app, CollectionSpec("c", chunk_chars=120, chunk_overlap_chars=20))
    model: dict[str, dict] = {}
    for act, key, seed in operations:
        doc_id = f"d{key}"
        if act == "put":
            document = {**random_documents(1, seed=seed)[0], "id": doc_id}
            status = app.documents.bulk("c", [document], encode=False).items[0].status
            assert status in ({"updated", "unchanged"} if doc_id in model else {"created"})
            model[doc_id] = document
        elif act == "delete":
            status = app.documents.delete("c", [doc_id]).items[0].status
            assert status == ("deleted" if model.pop(doc_id, None) else "not_found")
        elif act == "encode":
            encode_now(app, "c")
        elif act == "rebuild":
            app.catalog.engine("c").compact()
        elif model:
            found = app.search.search("c", SearchRequest("alpha beta gamma", k=50))
            assert {hit.doc_id for hit in found.hits} <= set(model)
    engine = app.catalog.engine("c")
    assert engine.check() == []
    reader = engine.store.reader()
    assert reader.counts().documents == len(model)
    for doc_id, document in model.items():
        stored = reader.get_document(doc_id)
        assert stored is not None
        assert (stored.title, stored.text, dict(stored.metadata)) == (
            document["title"],
            document["text"],
            document["metadata"],
        )
