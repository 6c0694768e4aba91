"""Retraining of the demo's collection from the button of the page, on the whole corpus, in one go; then the way back.

Some minutes of encoding and as many of training, so this runs with `make soak`.
"""

from __future__ import annotations

import json
import os
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from support.browser import ROOT, opened_page, retrain, serving

from hyblink.app.bootstrap import build
from hyblink.app.core.settings import Settings
from hyblink.app.evaluation.beir import read_beir
from hyblink.app.operations.ingestion import ingest_source
from hyblink.indexer.readers.python_package import PythonSource

QUESTIONS = ROOT / "tests" / "demo_questions"


def ask(api: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{api}{path}", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def rankings(api: str, queries: list[str]) -> list[str]:
    """What is found, with every line of every ledger, as it was sent."""
    return [
        json.dumps(ask(api, "/v1/search", {"collection": "python", "query": query, "k": 20, "explain": True})["hits"])
        for query in queries
    ]


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_the_demo_is_trained_anew_from_the_button(tmp_path: Path) -> None:
    app = build(Settings(data_dir=tmp_path))
    ingest_source(app, PythonSource("python"), "python")
    app.close()
    queries, qrels = read_beir(QUESTIONS, "test")
    judged = [
        {"query": queries[query], "document_id": document, "grade": grade}
        for query, grades in qrels.items()
        for document, grade in grades.items()
    ]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HYBLINK_")}
    environment |= {"PYTHONPATH": str(ROOT), "HYBLINK_DATA_DIR": str(tmp_path)}
    texts = list(queries.values())
    with (
        serving(environment, tmp_path, "python") as (api, address),
        opened_page(tmp_path / "profile", f"{address}/administration") as tab,
    ):
        ask(api, "/v1/judgements", {"collection": "python", "judgements": judged})
        before = rankings(api, texts)
        assert rankings(api, texts) == before
        started = time.monotonic()
        retrain(tab)
        tab.locator(".hb-retraining[data-state='waiting'], .hb-retraining[data-state='refused']").wait_for(
            timeout=3_000_000
        )
        seconds = time.monotonic() - started
        job = ask(api, "/v1/jobs?collection=python")["jobs"][0]
        figures = job["progress"]["verdict"]["figures"]
        print(f"\n{seconds:.0f} s from the button to the verdict: {json.dumps(job['progress']['data'])}")
        for name in ("judged", "held_out", "signal"):
            one = figures[name]
            print(
                f"{name}: {one['queries']} queries, nDCG@10 {one['serving']['nDCG@10']} → {one['candidate']['nDCG@10']}, "
                f"gain {one['gain']:+.4f}, at least {one['lower_bound']:+.4f}"
            )
        print(f"overlap of rankings {figures['overlap']}")
        if os.environ.get("HYBLINK_SCREENSHOT"):
            tab.screenshot(path=os.environ["HYBLINK_SCREENSHOT"].replace(".png", "-retrained.png"), full_page=True)
        assert job["state"] == "waiting", job["message"]
        assert figures["signal"]["queries"] >= 300
        assert figures["signal"]["lower_bound"] > 0
        assert figures["judged"]["lower_bound"] >= -0.02
        assert rankings(api, texts) == before, "nothing new before somebody approves"
        tab.get_by_role("button", name="Approve").click()
        tab.locator(".hb-retraining[data-state='done']").wait_for(timeout=120_000)
        assert rankings(api, texts) != before
        ask(api, "/v1/admin/rollback?collection=python", {})
        assert rankings(api, texts) == before, "byte for byte"
