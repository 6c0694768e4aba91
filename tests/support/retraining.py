"""Short retrainings, and what searches find."""

from __future__ import annotations

from typing import Any

from hyblink.app.application import App
from hyblink.app.core.types.search import SearchRequest
from hyblink.app.operations.retraining import start_retraining

C = "email"


SHORT = {"rows": 24, "held_out": 12, "options": {"steps": "4", "batch": "4", "checkpoint_every": "1"}}


LENIENT = {"worse": 1.0, "gain": -1.0, "least_overlap": 0.0}


def retrain(app: App, **params: Any) -> Any:
    job = start_retraining(app, C, {**SHORT, **params})
    assert app.jobs.wait(300)  # type: ignore[union-attr]
    return app.job_records.get(job.id)


QUERIES = ("parse a message", "encode a header", "date", "multipart boundary", "policy")


def rankings(app: App) -> list[Any]:
    """Every hit with every line of its ledger, to the last bit."""
    return [
        [(hit.doc_id, hit.score.hex(), [(line.signal, line.contribution.hex()) for line in hit.passages[0].signals])
         for hit in app.search.search(C, SearchRequest(query, k=30, explain=True)).hits]
        for query in QUERIES
    ]  # fmt: skip
