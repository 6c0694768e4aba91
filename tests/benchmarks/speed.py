"""Ingestion, BM25, sparse and hybrid speed on the large corpus, beside other libraries, in one run."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from hyblink.app.analysis.analyzer import Analyzer
from hyblink.app.bootstrap import build
from hyblink.app.core.settings import EncodeSettings, Settings
from hyblink.app.core.types.collections import CollectionSpec
from hyblink.app.core.types.ranking import Signal
from hyblink.app.core.types.search import SearchRequest
from hyblink.app.engines.embedded.engine import EmbeddedEngine
from hyblink.app.operations.collections import ensure_collection
from hyblink.indexer.ingest.pipeline import RejectsFile, ingest
from hyblink.indexer.readers.files import FileSource
from tests.benchmarks.timing import entities, latencies, questions, resident_mb, table

_K = 100


def run(data: Path, work: Path, passages: int) -> None:
    folder = work / "speed"
    shutil.rmtree(folder, ignore_errors=True)
    app = build(Settings(data_dir=folder, encode=EncodeSettings(vdr_model="none")))
    ensure_collection(app, CollectionSpec("wiki", dense_encoder="none", chunk_chars=0, chunk_overlap_chars=0))
    engine = app.catalog.engine("wiki")
    assert isinstance(engine, EmbeddedEngine)

    class Source(FileSource):
        def items(self, after=None):  # type: ignore[no-untyped-def]
            for number, item in enumerate(super().items(after)):
                if passages and number >= passages:
                    return
                yield item

    def upsert(documents, progress):  # type: ignore[no-untyped-def]
        return app.documents.upsert("wiki", documents, encode=False, progress=progress)

    source = Source(data / "el-wiki" / "entities.jsonl.gz")
    started = time.perf_counter()
    report = ingest(source, engine, upsert, rejects=RejectsFile(work / "rejects.jsonl"), batch_documents=2000)
    seconds = time.perf_counter() - started
    table(
        ["ingestion with BM25 + bag of tokens", "passages", "s", "passages/s", "goal"],
        [["read, analyze, bag, store, index", report.passages, seconds, report.passages / seconds, "≥ 5,000"]],
    )
    before = resident_mb()
    app.catalog.close()
    engine = app.catalog.engine("wiki")
    assert isinstance(engine, EmbeddedEngine)
    engine.compact()
    app.catalog.close()
    engine = app.catalog.engine("wiki")
    snapshot = engine.snapshot()
    analyzer = Analyzer("english")
    texts = questions(data)[:300]
    queries = [analyzer.terms(text) for text in texts]
    for terms in queries[:20]:
        snapshot.bm25.search(terms, _K, None)
    disk = {
        name: sum(p.stat().st_size for p in (engine.folder / name).rglob("*") if p.is_file())
        for name in ("bm25", "sparse")
    }
    disk["store"] = (engine.folder / "store.sqlite").stat().st_size
    per = 100_000 / report.passages
    table(
        ["per 100,000 passages", "MB"],
        [[f"{name} on disk", size * per / 1e6] for name, size in disk.items()]
        + [
            [
                "resident (anonymous), all open, after 20 searches, over the start",
                max(0.0, resident_mb() - before) * per,
            ]
        ],
    )
    _bm25(data, passages, queries, snapshot, engine)
    _sparse(app, texts, snapshot, engine)
    _hybrid(app, texts)
    app.close()


def _bm25(data: Path, passages: int, queries, snapshot, engine) -> None:  # type: ignore[no-untyped-def]
    import bm25s
    import tantivy
    from rank_bm25 import BM25Okapi

    rows = []
    ours, ours95 = latencies(lambda terms: snapshot.bm25.search(terms, _K, None), queries)
    rows.append(["hyblink BM25 leg", ours, ours95])
    searcher, schema = snapshot.bm25._searcher, snapshot.bm25._schema

    def plain(terms):  # type: ignore[no-untyped-def]
        clauses = [(tantivy.Occur.Should, tantivy.Query.term_query(schema, "terms", term, "freq")) for term in terms]
        hits = searcher.search(tantivy.Query.boolean_query(clauses), _K, count=False).hits
        return searcher.fast_field_values("row", [address for _, address in hits])

    bare, bare95 = latencies(plain, queries)
    rows.append(["tantivy, called plainly", bare, bare95])
    analyzer = Analyzer("english")
    tokens = [analyzer.terms(f"{d['title']}\n{d['text']}") for d in entities(data, passages)]
    retriever = bm25s.BM25(method="lucene", k1=1.2, b=0.75)
    retriever.index(tokens, show_progress=False)
    numpy50, numpy95 = latencies(lambda terms: retriever.retrieve([terms], k=_K, show_progress=False), queries[:100])
    rows.append(["bm25s (numpy)", numpy50, numpy95])
    try:
        retriever.backend = "numba"
        retriever.activate_numba_scorer()
        numba50, numba95 = latencies(
            lambda terms: retriever.retrieve([terms], k=_K, show_progress=False, n_threads=1), queries[:100]
        )
        rows.append(["bm25s (numba)", numba50, numba95])
    except Exception as error:
        print(f"bm25s (numba) did not run: {type(error).__name__}: {error}")
    okapi = BM25Okapi(tokens, k1=1.2, b=0.75)
    okapi50, okapi95 = latencies(
        lambda terms: np.argpartition(-okapi.get_scores(terms), _K)[:_K], queries[:6], warm_up=1
    )
    rows.append(["rank-bm25", okapi50, okapi95])
    table(
        [f"BM25, top {_K}, one query at a time", "p50 ms", "p95 ms", "× hyblink's p50"],
        [[*row, row[1] / ours] for row in rows],
    )


def _sparse(app, texts, snapshot, engine) -> None:  # type: ignore[no-untyped-def]
    bag = app.encoders.default_bag
    weights = [snapshot.bag.query_weights(bag.encode_query(text), 32) for text in texts]
    rows = []
    ours, ours95 = latencies(lambda query: snapshot.bag.search(query, _K, None), weights)
    rows.append(["hyblink sparse leg", ours, ours95])
    segment = snapshot.bag.parts[0][0]
    size = int(segment.tokens.max()) + 1
    counts = np.zeros(size + 1, dtype=np.int64)
    counts[segment.tokens + 1] = np.diff(segment.offsets)
    values = segment.weights if len(segment.weights) else np.ones(len(segment.docs), dtype=np.float32)
    matrix = sp.csc_matrix((values, np.array(segment.docs), np.cumsum(counts)), shape=(len(segment.rows), size))

    def scipy_top(query):  # type: ignore[no-untyped-def]
        scores = matrix[:, query.ids] @ query.weights
        best = np.argpartition(-scores, _K)[:_K]
        return best[np.argsort(-scores[best])]

    found = snapshot.bag.search(weights[0], _K, None)
    reference = scipy_top(weights[0])
    assert np.allclose(
        np.sort(found.scores), np.sort((matrix[:, weights[0].ids] @ weights[0].weights)[reference]), atol=1e-3
    )
    plain, plain95 = latencies(scipy_top, weights[:100])
    rows.append(["scipy CSC columns", plain, plain95])
    try:
        rows.append(_seismic(matrix, weights, snapshot))
    except Exception as error:
        print(f"pyseismic did not run: {type(error).__name__}: {error}")
    table(
        [f"sparse, ≤ 32 query tokens, top {_K}", "p50 ms", "p95 ms", "× hyblink's p50"],
        [[*row, row[1] / ours] for row in rows],
    )


def _seismic(matrix, weights, snapshot) -> list[object]:  # type: ignore[no-untyped-def]
    """pyseismic is approximate: its recall against the exact top stands beside its time."""
    from seismic import SeismicDataset, SeismicIndex, get_seismic_string

    csr = matrix.tocsr()
    kind = get_seismic_string()
    dataset = SeismicDataset()
    names = np.array([str(n) for n in range(csr.shape[1])], dtype=kind)
    for row in range(csr.shape[0]):
        start, end = csr.indptr[row], csr.indptr[row + 1]
        dataset.add_document(str(row), names[csr.indices[start:end]], csr.data[start:end].astype(np.float32))
    index = SeismicIndex.build_from_dataset(dataset)

    def search(query):  # type: ignore[no-untyped-def]
        return index.search(
            query_id="q",
            query_components=names[query.ids],
            query_values=query.weights,
            k=_K,
            query_cut=32,
            heap_factor=0.8,
        )

    p50, p95 = latencies(search, weights[:100])
    shares = []
    rows = snapshot.bag.parts[0][0].rows
    for query in weights[:50]:
        exact = snapshot.bag.search(query, _K, None)
        bar = float(exact.scores[-1]) if len(exact) else 0.0
        got = [rows[int(hit[2])] for hit in search(query)]
        scores = snapshot.bag.score(query, np.array(got))
        shares.append(float((scores >= bar - 1e-4).sum()) / max(len(exact), 1))
    return [f"pyseismic (recall@{_K} {np.mean(shares):.3f})", p50, p95]


def _hybrid(app, texts) -> None:  # type: ignore[no-untyped-def]
    """BM25 + sparse without encoding: the whole search against its slower leg alone."""
    request = {"k": 10, "candidates": 200, "highlight": False, "passages_per_document": 1}

    def legs(text):  # type: ignore[no-untyped-def]
        result = app.search.search("wiki", SearchRequest(text, **request))
        return max(leg.took_ms for leg in result.legs)

    for text in texts[:5]:
        legs(text)
    whole, slowest = [], []
    for text in texts:
        started = time.perf_counter()
        slowest.append(legs(text))
        whole.append((time.perf_counter() - started) * 1e3)
    singles = {
        s: latencies(lambda t, s=s: app.search.search("wiki", SearchRequest(t, signals=(s,), **request)), texts[:150])[
            0
        ]
        for s in (Signal.BM25, Signal.VDR)
    }
    median, bar = float(np.median(whole)), float(np.median(slowest))
    table(
        ["BM25 + sparse, whole search", "p50 ms", "goal"],
        [
            ["hybrid end to end", median, f"≤ {1.3 * bar + 3:.2f} (1.3 × slowest leg {bar:.2f} + 3)"],
            ["only BM25, end to end", singles[Signal.BM25], ""],
            ["only sparse, end to end", singles[Signal.VDR], ""],
        ],
    )
