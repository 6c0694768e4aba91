"""Against reference implementations: rank-bm25, bm25s, ir-measures."""

from __future__ import annotations

import math
from collections.abc import Callable

import ir_measures
import numpy as np
import pytest
from rank_bm25 import BM25Okapi
from scipy.stats import kendalltau
from support.documents import byte_length, random_documents

from hyblink.app.analysis.analyzer import Analyzer
from hyblink.app.application import App
from hyblink.app.core.types.collections import CollectionSpec
from hyblink.app.core.types.ranking import Signal
from hyblink.app.core.types.search import SearchRequest
from hyblink.app.evaluation.measures import measure
from hyblink.app.evaluation.significance import compare
from hyblink.app.operations.collections import ensure_collection
from hyblink.indexer.readers.python_package import PythonSource
from hyblink.ranker.complete import CompleteScores
from hyblink.ranker.tuning import judged_pool, ndcg

ANALYZER = Analyzer("english")


class LuceneIdf(BM25Okapi):
    """rank-bm25 with Lucene's idf and the one-byte length norm; everything else is its own."""

    def _calc_idf(self, nd: dict[str, int]) -> None:
        for word, frequency in nd.items():
            self.idf[word] = math.log(1 + (self.corpus_size - frequency + 0.5) / (frequency + 0.5))


def collection(make_app: Callable[..., App]) -> tuple[App, list[str], list[list[str]]]:
    documents = random_documents(300, seed=21)
    app = make_app()
    ensure_collection(app, CollectionSpec("c", chunk_chars=0, chunk_overlap_chars=0, dense_encoder="none"))
    app.documents.bulk("c", documents, encode=False)
    texts = [f"{d['title']}\n{d['text']}" if d["title"] else d["text"] for d in documents]
    return app, [d["id"] for d in documents], [ANALYZER.terms(text) for text in texts]


QUERIES = ["alpha beta", "gamma delta epsilon", "running kappa", "機械学習 alpha", "zeta eta theta iota"]


def test_bm25_orders_like_rank_bm25_with_lucene_idf_and_byte_norm(make_app: Callable[..., App]) -> None:
    app, ids, tokens = collection(make_app)
    reference = LuceneIdf(tokens, k1=1.2, b=0.75)
    reference.doc_len = [byte_length(length) for length in reference.doc_len]
    for query in QUERIES:
        terms = ANALYZER.terms(query)
        expected = np.asarray(reference.get_scores(terms)) / (1.2 + 1)  # rank-bm25 keeps the factor k1 + 1
        hits = app.search.search("c", SearchRequest(query, k=200, candidates=400, signals=(Signal.BM25,))).hits
        scores = {hit.doc_id: hit.passages[0].signals[0].raw for hit in hits}
        for doc_id, score in scores.items():
            assert score == pytest.approx(expected[ids.index(doc_id)], rel=1e-5)
        found = [round(float(expected[ids.index(hit.doc_id)]), 5) for hit in hits]
        assert found == sorted(found, reverse=True)


def test_kendall_tau_against_plain_rank_bm25(make_app: Callable[..., App]) -> None:
    """On real text. Plain rank-bm25 differs by its idf and its exact lengths, so the orders are close, not equal."""
    documents = [
        item.document for name in ("json", "csv", "email", "logging", "os", "re") for item in PythonSource(name).items()
    ]
    app = make_app()
    ensure_collection(app, CollectionSpec("c", chunk_chars=0, chunk_overlap_chars=0, dense_encoder="none"))
    app.documents.upsert("c", [document for document in documents if document], encode=False)
    ids = [document.id for document in documents if document]
    plain = BM25Okapi([ANALYZER.terms(f"{d.title}\n{d.text}") for d in documents if d], k1=1.2, b=0.75)
    taus = []
    for query in (
        "write rows to a file",
        "header of a message",
        "rotate log files",
        "environment variable",
        "compile a pattern",
    ):
        hits = app.search.search("c", SearchRequest(query, k=100, signals=(Signal.BM25,))).hits
        theirs = plain.get_scores(ANALYZER.terms(query))
        taus.append(kendalltau([hit.score for hit in hits], [theirs[ids.index(hit.doc_id)] for hit in hits]).statistic)
    print("Kendall's tau against plain rank-bm25:", [round(float(tau), 3) for tau in taus])
    assert min(taus) > 0.8


def test_our_ndcg_is_ir_measures(make_app: Callable[..., App]) -> None:
    rng = np.random.default_rng(5)
    for _ in range(20):
        names = [f"d{n}" for n in range(30)]
        grades = {name: int(grade) for name, grade in zip(names, rng.integers(0, 3, 30), strict=True)}
        grades |= {"unfound": 2}
        scores = rng.permutation(30).astype(float)
        pool = judged_pool(CompleteScores((Signal.BM25,), np.arange(30), scores[None], ({},)), names, grades)
        expected = ir_measures.calc_aggregate(
            [ir_measures.nDCG @ 10], {"q": grades}, {"q": dict(zip(names, scores.tolist(), strict=True))}
        )
        assert ndcg(pool, scores) == pytest.approx(expected[ir_measures.nDCG @ 10])


def test_significance() -> None:
    qrels = {f"q{n}": {"d": 1} for n in range(40)}
    good = {f"q{n}": {"d": 2.0, "x": 1.0} for n in range(40)}
    bad = {f"q{n}": {"d": 1.0, "x": 2.0} if n % 2 else {"d": 2.0, "x": 1.0} for n in range(40)}
    better, worse = measure("good", qrels, good), measure("bad", qrels, bad)
    assert better.mean["Success@1"] == 1.0
    assert worse.mean["Success@1"] == 0.5
    result = compare(better, worse)
    assert result.difference == pytest.approx((1 - 1 / math.log2(3)) / 2)
    assert result.p_t_test < 0.001
    assert result.p_randomisation < 0.001
    assert compare(better, better).p_randomisation == 1.0
    half = measure("half", qrels, {q: run for q, run in good.items() if q < "q2"})
    assert half.mean["nDCG@10"] < 1, "a judged query without an answer counts as 0"
