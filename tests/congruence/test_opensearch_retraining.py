"""Retraining where a real OpenSearch holds the collection: the same stages, the same promises."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hyblink.app.bootstrap import build
from hyblink.app.core.errors import NotFoundError
from hyblink.app.core.settings import JobsSettings, OpenSearchSettings, Settings
from hyblink.app.core.types.search import SearchRequest
from hyblink.app.engines.opensearch.local.cluster import Cluster
from hyblink.app.operations.collections import fsck
from hyblink.app.operations.generations import publish, roll_back
from hyblink.app.operations.ingestion import ingest_source
from hyblink.app.operations.retraining import start_retraining
from hyblink.indexer.readers.python_package import PythonSource

pytestmark = pytest.mark.services
C = "json"
PLAN = {
    "rows": 60,
    "held_out": 40,
    "options": {"steps": "4", "batch": "4"},
    "gate": {"worse": 1.0, "gain": -1.0, "least_overlap": 0.0},
}


def test_trained_approved_and_rolled_back_on_a_cluster(local_cluster: Callable[..., Cluster], tmp_path: Path) -> None:
    state = local_cluster().state()
    assert state is not None
    options = OpenSearchSettings(hosts=state.urls, prefix=f"retrain-{time.time_ns()}", keep_removed_s=0)
    jobs = JobsSettings(broker="none", retry_s=0.1)  # type: ignore[arg-type]
    app = build(Settings(engine="opensearch", data_dir=tmp_path, opensearch=options, jobs=jobs))
    try:
        ingest_source(app, PythonSource("email"), C)
        queries = ("parse a message", "encode a header", "policy")

        def rankings() -> list[list[tuple[str, str]]]:
            return [
                [(hit.doc_id, hit.score.hex()) for hit in app.search.search(C, SearchRequest(query, k=20)).hits]
                for query in queries
            ]

        rankings()  # loads what is needed
        before = rankings()
        job = start_retraining(app, C, PLAN)
        assert app.jobs.wait(300)  # type: ignore[union-attr]
        job = app.job_records.get(job.id)
        assert job.state == "waiting", job
        assert rankings() == before
        app.job_records.approve(job.id)
        assert app.jobs.wait(120)  # type: ignore[union-attr]
        job = app.job_records.get(job.id)
        assert job.state == "done", job
        assert app.catalog.current(C) == job.result["generation"]
        assert app.catalog.engine(C).check() == []
        assert roll_back(app, C) == "g000001"
        assert rankings() == before, "byte for byte"
        app.documents.bulk(C, [{"id": "late", "text": "A zebra wrote this letter."}])
        app.documents.delete(C, ["email:email.utils.formatdate"])
        assert app.jobs.wait(60)  # type: ignore[union-attr]
        publish(app, C, job.result["generation"])
        found = app.search.search(C, SearchRequest("zebra letter", k=3))
        assert (found.generation, found.hits[0].doc_id) == (job.result["generation"], "late")
        with pytest.raises(NotFoundError):
            app.documents.get(C, "email:email.utils.formatdate")
        counts = app.catalog.engine(C).store.reader().counts()
        assert counts.passages == counts.encoded
        assert fsck(app, C) == []
    finally:
        app.catalog.delete(C)
        app.close()
