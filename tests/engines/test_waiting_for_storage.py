"""An import waits for a node that is killed and comes back, goes on where it was, and merges what it replaced."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from hyblink.app.core.errors import EncoderUnavailableError, InvalidInputError, UnavailableError
from hyblink.app.core.progress import silent
from hyblink.app.engines.opensearch.local.cluster import Cluster
from hyblink.app.operations.ingestion import ingest_source
from hyblink.app.operations.patience import patiently
from hyblink.indexer.readers.files import FileSource
from tests.support.opensearch_faults import AppMaker, make_cluster_app, one_node  # noqa: F401 - a fixture

ROWS = 3000


def rows(path: Path, version: int) -> Path:
    path.write_bytes(
        b"".join(
            orjson.dumps({"id": f"d{n}", "text": f"alpha{n % 50} beta version{version} gamma{n}"}) + b"\n"
            for n in range(ROWS)
        )
    )
    return path


def test_what_waits_and_what_does_not() -> None:
    calls: list[str] = []

    def failing(*errors: Exception | None) -> Callable[[], str]:
        left = list(errors)

        def run() -> str:
            calls.append("run")
            error = left.pop(0)
            if error is not None:
                raise error
            return "done"

        return run

    away = UnavailableError("away")
    assert patiently(failing(away, away, None), lambda: None, 5, silent) == "done"
    assert calls == ["run"] * 3
    for error in (EncoderUnavailableError("no model"), InvalidInputError("bad")):
        with pytest.raises(type(error)):
            patiently(failing(error), lambda: None, 5, silent)
    with pytest.raises(UnavailableError):
        patiently(failing(away), lambda: None, 0, silent)

    def never() -> None:
        raise away

    with pytest.raises(UnavailableError, match="away"):
        patiently(failing(away), never, 0.1, silent)


@pytest.mark.services
def test_an_import_outlives_a_killed_node(
    make_cluster_app: AppMaker,
    local_cluster: Callable[..., Cluster],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = make_cluster_app(one_node(local_cluster), retries=1, timeout_s=5)
    cluster = local_cluster()
    source = FileSource(rows(tmp_path / "rows.jsonl", 1))
    monkeypatch.setattr("hyblink.indexer.ingest.pipeline._BATCH_CHARS", 5000)  # many transactions
    killed = threading.Event()

    def kill_and_start() -> None:
        node = cluster.state().nodes[0]  # type: ignore[union-attr]
        process = node.process()
        assert process is not None
        process.kill()
        killed.set()
        time.sleep(8)
        cluster.restart_node(node.name)

    killer = threading.Thread(target=kill_and_start)

    def progress(stage: str, total: int | None = None):  # type: ignore[no-untyped-def]
        def advance(count: int = 1, note: str = "") -> None:
            if stage == "documents" and not killer.is_alive() and not killed.is_set():
                killer.start()

        return advance

    done = ingest_source(app, source, "c", wait=False, progress=progress)
    killer.join()
    assert killed.is_set()
    assert "waiting up to" in caplog.text
    assert "answers again" in caplog.text
    assert (done.report.finished, done.report.rejected) == (True, 0)
    assert done.report.created + done.report.unchanged == ROWS
    counts = app.catalog.engine("c").store.reader().counts()
    assert counts.documents == ROWS


@pytest.mark.services
def test_replaced_entries_are_merged_after_an_import(
    make_cluster_app: AppMaker,
    local_cluster: Callable[..., Cluster],
    tmp_path: Path,
) -> None:
    app = make_cluster_app(one_node(local_cluster), keep_removed_s=0)
    ingest_source(app, FileSource(rows(tmp_path / "rows.jsonl", 1)), "c", wait=False)
    done = ingest_source(app, FileSource(rows(tmp_path / "rows.jsonl", 2)), "c", wait=False, resume=False)
    assert done.report.updated == ROWS
    assert done.outdated < 0.05, "Lucene keeps some for replicas that may recover"
    assert app.catalog.engine("c").store.reader().counts().documents == ROWS


def test_replaced_entries_are_merged_after_an_import_on_this_machine(make_app, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    app = make_app()
    ingest_source(app, FileSource(rows(tmp_path / "rows.jsonl", 1)), "c", wait=False)
    engine = app.catalog.engine("c")
    engine.snapshot()
    app.documents.bulk("c", [{"id": f"d{n}", "text": f"other {n}"} for n in range(500)], encode=False)
    engine.snapshot()
    assert engine.outdated() > 0.1
    done = ingest_source(app, FileSource(rows(tmp_path / "rows.jsonl", 2)), "c", wait=False, resume=False)
    assert done.report.updated == ROWS
    assert done.outdated == 0.0
