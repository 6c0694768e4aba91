"""A collection that is being encoded: nDCG@10 and time at 0, 5, 20, 50 and 100 % of its vectors.

A seeded share of the passages is encoded in steps. `words` are BM25 and the bags of tokens alone, the baseline that a search must
not fall below. `estimated` encodes nothing while it searches. `default` encodes candidates within its time.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from hyblink.app.bootstrap import build
from hyblink.app.core.settings import Settings
from hyblink.app.core.types.ranking import Signal
from hyblink.app.core.types.search import SearchRequest
from hyblink.app.evaluation.beir import read_beir
from hyblink.app.evaluation.measures import SystemResult, measure
from hyblink.app.evaluation.significance import compare
from hyblink.app.operations.encoding import encode_queries_ahead
from hyblink.app.operations.ingestion import NewCollection, ingest_source
from hyblink.indexer.encode import encode_rows
from hyblink.indexer.readers.files import FileSource
from tests.benchmarks.timing import table

SETS = ("scifact", "squadshifts-new-wiki", "squadshifts-amazon-reviews")
_SHARES = (0.0, 0.05, 0.2, 0.5, 1.0)
_QUERIES = 150
_NAME = "c"


def run(data: Path, work: Path, _passages: int) -> None:
    rows = []
    for name in SETS:
        folder = work / "half-encoded" / name
        settings = Settings(data_dir=folder)
        app = build(settings)
        if not app.catalog.has(_NAME):
            ingest_source(app, FileSource(data / name), _NAME, NewCollection(whole=True), wait=False)
        queries, qrels = read_beir(data / name, "dev")
        some = sorted(queries)[:: max(1, len(queries) // _QUERIES)][:_QUERIES]
        queries, qrels = {query: queries[query] for query in some}, {query: qrels[query] for query in some}
        encode_queries_ahead(app, _NAME, list(queries.values()))
        engine = app.catalog.engine(_NAME)
        order = np.random.default_rng(7).permutation(engine.store.reader().live_rows())
        for share in _SHARES:
            wanted = order[: round(share * len(order))]
            for at in range(0, len(wanted), 128):
                encode_rows(engine, app.encoders.hybrid_encoder(engine.record), wanted[at : at + 128])
            words = _asked(settings, queries, qrels, 0, (Signal.BM25, Signal.VDR))
            estimated = _asked(settings, queries, qrels, 0)
            default = _asked(settings, queries, qrels, settings.search.encode_waiting)
            rows.append(
                [f"{name}, {share:.0%}", words[0].mean["nDCG@10"], estimated[0].mean["nDCG@10"],
                 default[0].mean["nDCG@10"], f"{compare(default[0], words[0]).p_randomisation:.2g}",
                 f"{estimated[1]:.1f}", f"{default[1]:.0f}", f"{default[2]:.0f}"]
            )  # fmt: skip
        app.close()
    table(
        [
            "encoded",
            "words",
            "estimated",
            "default",
            "p against words",
            "p50 ms, estimated",
            "p50 ms",
            "encoded a search",
        ],
        rows,
    )


def _asked(
    settings: Settings,
    queries: dict[str, str],
    qrels: dict[str, dict[str, int]],
    encode: int,
    signals: tuple[Signal, ...] = (Signal.BM25, Signal.VDR, Signal.DENSE),
) -> tuple[SystemResult, float, float]:
    """The result, the median time in milliseconds, and the median number of passages encoded by a search."""
    search = settings.search.model_copy(update={"encode_waiting": encode})
    app = build(settings.model_copy(update={"search": search}))  # without vectors that searches before have made
    encode_queries_ahead(app, _NAME, list(queries.values()))
    ranked, taken, encoded = {}, [], []
    for query, text in queries.items():
        started = time.perf_counter()
        found = app.search.search(_NAME, SearchRequest(text, signals=signals, highlight=False))
        taken.append((time.perf_counter() - started) * 1e3)
        encoded.append(found.waiting.encoded if found.waiting else 0)
        ranked[query] = {str(hit.doc_id): 1.0 / hit.rank for hit in found.hits}
    app.close()
    return measure("x", qrels, ranked, ("nDCG@10",)), float(np.median(taken)), float(np.median(encoded))
