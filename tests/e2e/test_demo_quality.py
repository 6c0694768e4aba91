"""The demo's own questions, judged by hand, on the real documentation with the real encoder.

Encoding about 7,500 passages takes some minutes on two cores, so this runs with the service tests: there on the judged
documents and a third of the others, in `make soak` on all.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
from support.services import SOAK

from hyblink.app.bootstrap import build
from hyblink.app.core.settings import Settings
from hyblink.app.core.types.ranking import DEFAULT_SIGNALS, Signal
from hyblink.app.core.types.search import SearchRequest
from hyblink.app.evaluation.beir import read_beir
from hyblink.app.operations.encoding import encode_queries_ahead
from hyblink.app.operations.ingestion import ingest_source
from hyblink.indexer.readers.item import SourceItem
from hyblink.indexer.readers.python_package import PythonSource
from hyblink.ranker.complete import fuse
from hyblink.ranker.tuning import judged_pool, ndcg, tune

QUESTIONS = Path(__file__).resolve().parents[1] / "demo_questions"


class Share:
    """The documentation, or in CI the documents with these ids and a third of the others."""

    def __init__(self, wanted: set[str]) -> None:
        self._source = PythonSource("python")
        self._wanted = wanted
        self.id = self._source.id

    def items(self, after: str | None = None) -> Iterator[SourceItem]:
        for item in self._source.items(after):
            kept = item.document is None or item.document.id in self._wanted
            if SOAK or kept or crc32(str(item.position).encode()) % 3 == 0:
                yield item


def test_the_questions_are_judged_and_point_at_documents() -> None:
    queries, qrels = read_beir(QUESTIONS, "test")
    known = {item.document.id for item in PythonSource("python").items() if item.document}
    assert len(queries) >= 60
    assert all(max(grades.values()) == 2 for grades in qrels.values())
    missing = {doc for grades in qrels.values() for doc in grades} - known
    assert len(missing) <= 0.02 * sum(map(len, qrels.values())), missing  # names differ a little between Pythons


@pytest.mark.services
@pytest.mark.timeout(1500)
def test_the_tuned_hybrid_is_at_least_as_good_as_the_best_leg(tmp_path: Path) -> None:
    app = build(Settings(data_dir=tmp_path))
    try:
        queries, qrels = read_beir(QUESTIONS, "test")
        report = ingest_source(app, Share({doc for grades in qrels.values() for doc in grades}), "python").report
        assert report.rejected == 0
        encode_queries_ahead(app, "python", list(queries.values()))
        pools = []
        for query, text in queries.items():
            scores, documents = app.search.pool("python", SearchRequest(text, k=1, candidates=200))
            pools.append(judged_pool(scores, documents, qrels[query]))
        tuned = tune(pools, DEFAULT_SIGNALS)
        shipped = app.catalog.profile("python", app.catalog.current("python"))
        untuned = float(np.mean([ndcg(pool, fuse(pool.scores, shipped).scores_C) for pool in pools]))
        print(
            {s.value: round(v, 4) for s, v in tuned.single.items()}, round(tuned.cross_validated, 4), round(untuned, 4)
        )
        assert tuned.cross_validated >= max(tuned.single.values())
        assert untuned >= tuned.single[Signal.BM25] + 0.05
    finally:
        app.close()
