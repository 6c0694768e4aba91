"""Retraining end to end: real documentation, the shipped model and adapter, every stage, and what goes wrong in each."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from support import processes
from support.retraining import LENIENT, SHORT, C, rankings, retrain

import hyblink.app.operations.retraining as stages
from hyblink.app.access.keys import KeyStore
from hyblink.app.api.application import create_api
from hyblink.app.application import App
from hyblink.app.bootstrap import build
from hyblink.app.core.errors import ConflictError, InvalidInputError, NotFoundError, UnavailableError
from hyblink.app.core.settings import JobsSettings, Settings
from hyblink.app.core.types.collections import CollectionSpec
from hyblink.app.core.types.search import SearchRequest
from hyblink.app.operations.collections import ensure_collection
from hyblink.app.operations.encoding import encode_now
from hyblink.app.operations.generations import publish, rebuild, roll_back
from hyblink.app.operations.jobs import cancel_job
from hyblink.app.operations.maintenance import sweep, tidy
from hyblink.app.operations.retraining import folder_of, model_name, schedule_retraining, start_retraining
from hyblink.indexer.readers.python_package import PythonSource

MODULES = re.compile(r"email:email(\.(message|header|utils|charset).*)?$")
CHARS = 500
_ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The beginnings of the documentation of a part of the package `email`, encoded, and some judged questions."""
    folder = tmp_path_factory.mktemp("retrain") / "data"
    app = build(Settings(data_dir=folder))
    ensure_collection(app, CollectionSpec(C))
    documents = [item.document for item in PythonSource("email").items() if item.document]
    short = [replace(one, text=one.text[:CHARS]) for one in documents if MODULES.match(one.id)]
    app.documents.upsert(C, short, encode=False)
    encode_now(app, C)
    judged = {
        "parse a message from a file": "email:email.message_from_file",
        "add a header to a message": "email:email.message.Message.add_header",
        "guess the character set of a header": "email:email.header.decode_header",
        "turn a date into a string": "email:email.utils.formatdate",
    }
    rows = [{"query": query, "document_id": doc, "grade": 2} for query, doc in judged.items()]
    app.feedback.judge(C, rows, source="person")
    app.close()
    return folder


@pytest.fixture
def app(ingested: Path, tmp_path: Path) -> Iterator[App]:
    shutil.copytree(ingested, tmp_path / "data")
    jobs = JobsSettings(broker="none", retry_s=0.01)  # type: ignore[arg-type]
    made = build(Settings(data_dir=tmp_path / "data", jobs=jobs))
    yield made
    made.close()


def test_from_corpus_to_approval_and_back(app: App) -> None:
    before = rankings(app)
    job = retrain(app, gate=LENIENT)
    assert (job.state, job.stage) == ("waiting", "approve"), job.error
    told = job.progress
    assert told["data"]["rows"] + told["data"]["dev"] == SHORT["rows"]
    assert (told["data"]["held_out"], told["data"]["judged"]) == (SHORT["held_out"], 4)
    figures = told["verdict"]["figures"]
    assert 0.3 < figures["held_out"]["serving"]["nDCG@10"] <= 1
    assert told["verdict"]["certain"] is False, "four judged queries are too few to do without a person"
    assert app.catalog.current(C) == "g000001"
    assert rankings(app) == before, "nothing new is served before somebody approves"
    record = app.catalog.record(C, told["candidate"])
    assert record.vdr_model.startswith(f"vdr:{model_name(job)}:")
    manifest = stages.ModelRegistry(app.settings.models_dir).show(model_name(job))
    assert manifest["parent"] == app.catalog.record(C, "g000001").vdr_model
    assert manifest["recipe"] == "vdr_again"
    written = app.documents.bulk(C, [{"id": "late", "text": "A zebra wrote this letter."}])
    assert not written.errors
    app.documents.delete(C, ["email:email.utils.formatdate"])
    app.job_records.approve(job.id, "somebody")
    assert app.jobs.wait(120)  # type: ignore[union-attr]
    job = app.job_records.get(job.id)
    assert (job.state, job.progress["approved_by"]) == ("done", "somebody"), job.error
    assert app.catalog.current(C) == told["candidate"] == job.result["generation"]
    found = app.search.search(C, SearchRequest("zebra letter", k=3))
    assert (found.generation, found.hits[0].doc_id) == (told["candidate"], "late"), "written while it waited"
    with pytest.raises(NotFoundError):
        app.documents.get(C, "email:email.utils.formatdate")
    assert app.catalog.engine(C).check() == []
    counts = app.catalog.engine(C).store.reader().counts()
    assert counts.encoded == counts.passages
    assert stages.ModelRegistry(app.settings.models_dir).promoted() == {"vdr-head": [model_name(job)]}
    assert rebuild(app, C).vdr_model == record.vdr_model, "the next generation keeps what was trained"
    other = build(app.settings)
    assert other.search.search(C, SearchRequest("zebra letter", k=3)).hits[0].doc_id == "late"
    other.close()


def test_rolling_back_brings_the_same_rankings_byte_for_byte(app: App) -> None:
    before = rankings(app)
    job = retrain(app, gate={**LENIENT, "least_judged": 4}, publish="auto")
    assert job.state == "done", (job.message, job.error)
    assert rankings(app) != before
    assert roll_back(app, C) == "g000001"
    assert rankings(app) == before
    app.documents.bulk(C, [{"id": "late", "text": "A zebra wrote this letter."}])
    publish(app, C, job.result["generation"])
    assert app.search.search(C, SearchRequest("zebra", k=3)).hits[0].doc_id == "late", "what was written is in both"
    app.documents.delete(C, ["late"])
    roll_back(app, C)
    assert rankings(app) == before


def test_a_failed_gate_says_why_and_serves_nothing_new(app: App) -> None:
    before = rankings(app)
    job = retrain(app, gate={**LENIENT, "gain": 1.0})
    assert job.state == "refused"
    assert "the gate says no: on 12 held-out questions by this signal alone the gain in nDCG@10 is" in job.message
    assert job.result["published"] is False
    assert [one.id for one in app.catalog.generations(C)] == ["g000001"], "the candidate is thrown away"
    assert rankings(app) == before
    assert app.job_records.dead_letters() == []
    with pytest.raises(ConflictError, match="does not wait"):
        app.job_records.approve(job.id)


def test_one_at_a_time_cancel_and_resume(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    real = stages.runs_of
    monkeypatch.setattr(stages, "runs_of", lambda *_: (_ for _ in ()).throw(UnavailableError("the index is away")))
    job = start_retraining(app, C, {**SHORT, "gate": LENIENT})
    with pytest.raises(ConflictError, match="a retrain job of this collection is"):
        start_retraining(app, C, SHORT)
    deadline = time.monotonic() + 200
    while (seen := app.job_records.get(job.id)).state != "failed":
        assert time.monotonic() < deadline, seen
        time.sleep(0.2)
    assert "the index is away" in seen.error
    assert seen.attempts == 5, "reports of the same stage are no progress"
    model = app.settings.models_dir / model_name(job) / "manifest.json"
    made = model.stat().st_mtime_ns
    candidate = seen.progress["candidate"]
    monkeypatch.setattr(stages, "runs_of", real)
    app.job_records.resume(job.id)
    assert app.jobs.wait(200)  # type: ignore[union-attr]
    assert app.job_records.get(job.id).state == "waiting"
    assert model.stat().st_mtime_ns == made, "finished stages are not done again"
    assert app.job_records.get(job.id).progress["candidate"] == candidate
    assert cancel_job(app, job.id).state == "cancelled"
    assert [one.id for one in app.catalog.generations(C)] == ["g000001"]
    app.job_records.resume(job.id)
    with pytest.raises(ConflictError, match="a retrain job of this collection is"):
        start_retraining(app, C, SHORT)
    assert app.jobs.wait(200)  # type: ignore[union-attr]
    seen = app.job_records.get(job.id)
    assert (seen.state, model.stat().st_mtime_ns) == ("waiting", made), seen.error


def test_a_stage_that_never_ends_is_given_up(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes through the finished stages and tells its own again each time: that is no progress."""
    from hyblink.training import run as training_run

    def fails(*_: Any, progress: Callable[[int, float], None], **__: Any) -> None:
        progress(10, 1.0)
        raise UnavailableError("out of memory")

    monkeypatch.setattr(training_run, "train_model", fails)
    job = start_retraining(app, C, {**SHORT, "gate": LENIENT})
    deadline = time.monotonic() + 120
    while (seen := app.job_records.get(job.id)).state != "failed":
        assert time.monotonic() < deadline, seen
        time.sleep(0.1)
    assert (seen.attempts, seen.stage) == (5, "train")


def test_an_approval_that_comes_too_late_is_refused(app: App) -> None:
    """Ids of generations are used again: what another has built under the candidate's is not taken for it."""
    job = retrain(app, gate=LENIENT)
    assert job.state == "waiting"
    assert rebuild(app, C).id == "g000003"
    before = rankings(app)
    app.job_records.approve(job.id)
    assert app.jobs.wait(60)  # type: ignore[union-attr]
    late = app.job_records.get(job.id)
    assert (late.state, "g000003 answers now" in late.message) == ("refused", True), late
    assert [one.id for one in app.catalog.generations(C)] == ["g000001", "g000003"]
    assert rankings(app) == before
    again = retrain(app, gate=LENIENT)
    assert (again.state, again.progress["candidate"]) == ("waiting", "g000004")
    cancel_job(app, again.id)
    assert rebuild(app, C).id == "g000004"
    roll_back(app, C)
    app.job_records.resume(again.id)
    assert app.jobs.wait(200)  # type: ignore[union-attr]
    seen = app.job_records.get(again.id)
    assert (seen.state, seen.progress["candidate"]) == ("waiting", "g000005"), seen.error
    cancel_job(app, seen.id)
    assert [one.id for one in app.catalog.generations(C)] == ["g000001", "g000003", "g000004"]


def test_old_generations_are_dropped_and_candidates_are_not(app: App) -> None:
    job = retrain(app, gate=LENIENT)
    assert app.catalog.drop_old(C, 1) == []
    assert app.catalog.record(C, job.progress["candidate"])
    app.job_records.cancel(job.id)  # whoever should have thrown the candidate away has died
    tidy(app)
    assert [one.id for one in app.catalog.generations(C)] == ["g000001"]


def test_what_cannot_be_trained_anew_is_said(app: App) -> None:
    ensure_collection(app, CollectionSpec("words", dense_encoder="none"))
    with pytest.raises(ConflictError, match="no VDR encoder"):
        start_retraining(app, "words", {})
    with pytest.raises(NotFoundError):
        start_retraining(app, "nothing", {})
    with pytest.raises(InvalidInputError, match="unknown target"):
        start_retraining(app, C, {"target": "moon"})
    ensure_collection(app, CollectionSpec("empty"))
    job = start_retraining(app, "empty", {})
    assert app.jobs.wait(60)  # type: ignore[union-attr]
    assert "nothing to learn from" in app.job_records.get(job.id).error


def test_by_the_clock(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    schedule_retraining(app, C, 1.0, {**SHORT, "gate": LENIENT}, "clock")
    sweep(app)
    assert app.job_records.list(collection=C) == []
    now = time.time()
    with monkeypatch.context() as clock:
        clock.setattr("hyblink.app.operations.maintenance.time.time", lambda: now + 3601)
        sweep(app)
    (job,) = app.job_records.list(collection=C)
    assert (job.kind, job.by, job.params["rows"]) == ("retrain", "clock", SHORT["rows"])
    cancel_job(app, job.id)
    assert app.schedules.get(C).next == pytest.approx(now + 3601 + 3600, abs=60)
    with pytest.raises(InvalidInputError):
        schedule_retraining(app, C, 1.0, {"rows": 0})


def test_the_routes_and_who_may(app: App) -> None:
    keys = KeyStore(app.catalog.records())
    made = {role: keys.create(role, "now") for role in ("search", "ingest", "admin")}
    made["admin of another"] = keys.create("admin", "now", ["other"])
    routes: list[tuple[str, str, Any, int]] = [
        ("POST", "/v1/admin/retrain", {"collection": C, **SHORT, "gate": LENIENT}, 202),
        ("POST", "/v1/admin/retrain/j20260101T000000000000-000000/approve", None, 404),
        ("PUT", "/v1/admin/retrain/schedule", {"collection": C, "every_hours": 24}, 200),
        ("GET", f"/v1/admin/retrain/schedule?collection={C}", None, 200),
        ("DELETE", f"/v1/admin/retrain/schedule?collection={C}", None, 204),
    ]
    settings = app.settings.model_copy(update={"api": app.settings.api.model_copy(update={"open_on_loopback": False})})
    app.settings = settings
    with TestClient(create_api(app), base_url="http://127.0.0.1") as client:

        def ask(method: str, path: str, body: Any, key: str) -> Any:
            return client.request(method, path, json=body, headers={"Authorization": f"Bearer {key}"})

        for method, path, body, _ in routes:
            assert client.request(method, path, json=body).status_code == 401
            for who in ("search", "ingest", "admin of another"):
                status = ask(method, path, body, made[who]).status_code
                assert status == 403 or (status == 404 and "approve" in path), (who, path, status)
        assert ask("GET", "/v1/admin/models", None, made["ingest"]).status_code == 403
        for body in ({"collection": C, "rows": 0}, {"collection": C, "gate": {"gain": "x"}}, {"collection": "../x"}):
            assert ask("POST", "/v1/admin/retrain", body, made["admin"]).status_code == 400
        answers = [ask(method, path, body, made["admin"]) for method, path, body, _ in routes]
        assert [one.status_code for one in answers] == [status for *_, status in routes]
        job = answers[0].json()
        assert ask("POST", f"/v1/jobs/{job['id']}/cancel", None, made["ingest"]).status_code == 403
        assert app.jobs.wait(200)  # type: ignore[union-attr]
        assert ask("GET", f"/v1/jobs/{job['id']}", None, made["admin"]).json()["state"] == "waiting"
        for who in ("search", "ingest", "admin of another"):
            assert ask("POST", f"/v1/admin/retrain/{job['id']}/approve", None, made[who]).status_code == 403
        assert ask("POST", f"/v1/admin/retrain/{job['id']}/approve", None, made["admin"]).json()["state"] == "queued"
        assert app.jobs.wait(60)  # type: ignore[union-attr]
        shown = ask("GET", "/v1/admin/models", None, made["admin"]).json()["models"]
        assert [(one["name"], one["promoted"]) for one in shown] == [(model_name(app.job_records.get(job["id"])), True)]


def test_a_worker_that_is_killed_in_the_middle_is_followed_by_another(app: App) -> None:
    """Real workers at the filesystem broker; the first dies between two steps of the training, the second goes on."""
    before = rankings(app)
    jobs = JobsSettings(broker="filesystem", silent_s=5, sweep_s=1)  # type: ignore[arg-type]
    here = build(app.settings.model_copy(update={"jobs": jobs}))
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("HYBLINK_")},
        "HYBLINK_DATA_DIR": str(app.settings.data_dir),
        "HYBLINK_JOBS__BROKER": "filesystem",
        "HYBLINK_JOBS__SILENT_S": "5",
        "HYBLINK_JOBS__SWEEP_S": "1",
        "PYTHONPATH": str(_ROOT),
    }
    command = [sys.executable, "-m", "hyblink.app.cli.main", "worker", "--beat", "--queues", "train,maintenance,encode"]

    def start() -> processes.Process:
        return processes.start(command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL)

    def until(condition: Callable[[Any], bool], patience_s: float = 240) -> Any:
        deadline = time.monotonic() + patience_s
        while not condition(seen := here.job_records.get(job.id)):
            assert time.monotonic() < deadline, seen
            assert seen.state != "failed", seen.error
            time.sleep(0.05)
        return seen

    options = {"steps": "40", "batch": "4", "checkpoint_every": "5"}
    job = start_retraining(here, C, {**SHORT, "options": options, "gate": LENIENT})
    run = folder_of(here.settings, job) / "run"
    worker = start()
    try:
        until(lambda _: any(run.glob("checkpoint-*/manifest.json")))
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
        kept = sorted(int(path.parent.name.split("-")[1]) for path in run.glob("checkpoint-*/manifest.json"))
        assert here.job_records.get(job.id).stage == "train"
        assert kept[-1] < 40
        told = here.job_records.get(job.id)
        worker = start()
        first = until(lambda one: one.fence > told.fence and one.progress.get("train") != told.progress.get("train"))
        assert first.progress["train"]["step"] > kept[-1], "it has not begun anew"
        seen = until(lambda one: one.state == "waiting")
    finally:
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
    assert seen.fence >= 2
    assert rankings(app) == before
    assert here.catalog.engine(C, seen.progress["candidate"]).check() == []
    here.close()
