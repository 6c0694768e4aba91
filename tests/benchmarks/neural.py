"""OpenSearch's own hybrid search beside ours: the same passages, vectors, bags, weights and depth, on one 3.6.0 node.

Uses the collections that the part `quality` leaves in the work folder, so nothing is encoded again.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hyblink.app.analysis.analyzer import Analyzer
from hyblink.app.application import App
from hyblink.app.bootstrap import build
from hyblink.app.core.checks import fold
from hyblink.app.core.ports.encoders import EncodedQuery
from hyblink.app.core.settings import EncodeSettings, OpenSearchSettings, Settings
from hyblink.app.core.types.arrays import TermWeights, VectorArray
from hyblink.app.core.types.ranking import DEFAULT_SIGNALS, Signal
from hyblink.app.core.types.search import SearchRequest
from hyblink.app.encoders.cached_queries import CachedQueries
from hyblink.app.engines.opensearch import query_builder as build_query
from hyblink.app.engines.opensearch.client import Json
from hyblink.app.engines.opensearch.knn import KNN
from hyblink.app.engines.opensearch.layout import PASSAGE_FIELDS
from hyblink.app.engines.opensearch.local.cluster import Cluster, ClusterOptions
from hyblink.app.engines.opensearch.passages import PassageSignals
from hyblink.app.evaluation.beir import read_beir
from hyblink.app.evaluation.measures import measure
from hyblink.app.operations.collections import ensure_collection
from hyblink.indexer.generations.build import copy_documents
from tests.benchmarks.timing import table

_SET = "scifact"
_BAGS = EncodeSettings(vdr_model="none")
_DEPTH = 100
_WEIGHTS = {Signal.BM25: 0.3, Signal.VDR: 0.2, Signal.DENSE: 0.5}


def run(data: Path, work: Path, _passages: int) -> None:
    if not (work / "quality").exists():
        print("skipped: run the part `quality` with the same --work folder first")
        return
    source = build(Settings(data_dir=work / "quality", encode=_BAGS))
    cluster = Cluster("neural")
    cluster.remove()
    try:
        state = cluster.start(ClusterOptions(heap_mb=2048, version="3.6.0"))
        with tempfile.TemporaryDirectory() as folder:
            options = OpenSearchSettings(hosts=state.urls, timeout_s=120)
            app = build(Settings(engine="opensearch", data_dir=Path(folder), opensearch=options, encode=_BAGS))
            spec = source.catalog.spec(_SET)
            ensure_collection(app, type(spec)(_SET, dense_index="knn", chunk_chars=0, chunk_overlap_chars=0))
            engine = app.catalog.engine(_SET)
            exported = source.catalog.engine(_SET).store.reader().export()
            copy_documents(exported, engine, keep_vectors=True)
            engine.compact(patience_s=90)
            _compare(app, data)
            app.close()
    finally:
        cluster.remove()
        source.close()


class _Theirs:
    """Requests to the neural-search plugin, with the forms of the query that we use ourselves."""

    def __init__(self, app: App) -> None:
        engine = app.catalog.engine(_SET)
        snapshot = engine.snapshot()
        view: Any = snapshot.bag
        self.signals: PassageSignals = view.signals
        self._client = self.signals.cluster.client
        self._bag = app.encoders.bag(engine.record.vdr_encoder)
        self._dense = app.encoders.dense(engine.record.dense_encoder)
        self._analyzer = Analyzer(engine.record.analyzer)
        self.index = self.signals.reader.names.passages
        reader = snapshot.reader
        self.documents = {row: passage.doc_id for row, passage in reader.passages(reader.live_rows()).items()}
        self._forms: dict[str, tuple[list[str], TermWeights, VectorArray]] = {}

    def forms(self, text: str) -> tuple[list[str], TermWeights, VectorArray]:
        if text not in self._forms:
            query = fold(text)
            weights = self.signals.query_weights(self._bag.encode_query(query), 32)
            self._forms[text] = (self._analyzer.terms(query), weights, self._dense.encode_query(query))
        return self._forms[text]

    def queries(self, text: str) -> dict[Signal, Json]:
        terms, weights, vector = self.forms(text)
        tokens = {str(t): w for t, w in zip(weights.ids.tolist(), weights.weights.tolist(), strict=True)}
        return {
            Signal.BM25: build_query.bm25_query(terms),
            Signal.VDR: {"neural_sparse": {"bag": {"query_tokens": tokens}}},
            Signal.DENSE: {"knn": {KNN: {"vector": vector.tolist(), "k": _DEPTH}}},
        }

    def search(self, query: Json, pipeline: str = "") -> dict[str, float]:
        body: Json = {"size": 10, "query": query, "_source": PASSAGE_FIELDS}
        params = {"search_pipeline": pipeline} if pipeline else {}
        hits = self._client.search(index=self.index, body=body, params=params)["hits"]["hits"]
        found: dict[str, float] = {}
        for hit in hits:
            found.setdefault(hit["_source"]["doc_id"], float(hit["_score"]))
        return found

    def hybrid(self, text: str, pipeline: str) -> dict[str, float]:
        queries = list(self.queries(text).values())
        return self.search({"hybrid": {"queries": queries, "pagination_depth": _DEPTH}}, pipeline)

    def pipelines(self) -> None:
        weights = list(_WEIGHTS.values())
        mean = {"technique": "arithmetic_mean", "parameters": {"weights": weights}}
        for name, processor in {
            "min_max": {"normalization-processor": {"normalization": {"technique": "min_max"}, "combination": mean}},
            "z_score": {"normalization-processor": {"normalization": {"technique": "z_score"}, "combination": mean}},
            "rrf": {"score-ranker-processor": {"combination": {"technique": "rrf", "rank_constant": 60}}},
        }.items():
            self._client.transport.perform_request(
                "PUT", f"/_search/pipeline/{name}", body={"phase_results_processors": [processor]}
            )


def _compare(app: App, data: Path) -> None:
    queries, qrels = read_beir(data / _SET, "dev")
    theirs = _Theirs(app)
    theirs.pipelines()
    stock = PassageSignals(
        type(theirs.signals.cluster)(theirs.signals.cluster.settings.model_copy(update={"plugin": False})),
        theirs.signals.reader,
    )

    def ours(**options: Any) -> Callable[[str], Mapping[str, float]]:
        def search(text: str) -> Mapping[str, float]:
            request = SearchRequest(text, k=10, candidates=_DEPTH, highlight=False, passages_per_document=1, **options)
            return {hit.doc_id: hit.score for hit in app.search.search(_SET, request).hits}

        return search

    def sparse(signals: PassageSignals) -> Callable[[str], Mapping[str, float]]:
        def search(text: str) -> Mapping[str, float]:
            found = signals.search((), theirs.forms(text)[1], 10, None)[1]
            return {
                theirs.documents[row]: score
                for row, score in zip(found.rows.tolist(), found.scores.tolist(), strict=True)
            }

        return search

    systems: dict[str, Callable[[str], Mapping[str, float]]] = {
        "neural_sparse query": lambda text: theirs.search(theirs.queries(text)[Signal.VDR]),
        "our vdr query": sparse(theirs.signals),
        "our stock clauses": sparse(stock),
        "hybrid query, min_max, same weights": lambda text: theirs.hybrid(text, "min_max"),
        "ours, min_max, same weights": ours(normalization="min_max", fusion="weighted_sum", weights=_WEIGHTS),
        "hybrid query, z_score, same weights": lambda text: theirs.hybrid(text, "z_score"),
        "ours, z_score, same weights": ours(normalization="z_score", fusion="weighted_sum", weights=_WEIGHTS),
        "hybrid query, RRF": lambda text: theirs.hybrid(text, "rrf"),
        "ours, RRF": ours(fusion="rrf", weights=dict.fromkeys(DEFAULT_SIGNALS, 1.0)),
    }
    for text in queries.values():
        theirs.forms(text)  # encoding is left out of the times of either side
    record = app.catalog.engine(_SET).record
    known = {fold(text): EncodedQuery(theirs.forms(text)[2]) for text in queries.values()}
    app.encoders.put_hybrid_encoder(record, CachedQueries(app.encoders.hybrid_encoder(record), known))
    runs: dict[str, dict[str, Mapping[str, float]]] = {name: {} for name in systems}
    taken: dict[str, list[float]] = {name: [] for name in systems}
    for warm in (True, False):  # alternating, so that whatever else happens meets all of them
        for number, (query, text) in enumerate(queries.items()):
            for name, search in systems.items():
                if warm and number >= 40:
                    continue
                started = time.perf_counter()
                found = search(text)
                if not warm:
                    taken[name].append((time.perf_counter() - started) * 1e3)
                    runs[name][query] = found
    rows = []
    for name in systems:
        result = measure(name, qrels, {q: dict(found) for q, found in runs[name].items()}, ("nDCG@10",))
        p50, p95 = np.percentile(taken[name], [50, 95])
        rows.append([name, result.mean["nDCG@10"], float(p50), float(p95)])
    table(
        [f"{_SET} dev, {len(queries)} questions, {_DEPTH} candidates a leg, 10 shown", "nDCG@10", "p50 ms", "p95 ms"],
        rows,
    )
