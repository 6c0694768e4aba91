"""Jobs that keep a collection in step with a source, and their schedule."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from support.api import LOOPBACK, error

from hyblink.app.api.application import create_api
from hyblink.app.application import App
from hyblink.app.core.settings import JobsSettings, SourceSettings
from hyblink.app.operations.maintenance import sweep


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "shared" / "notes"
    folder.mkdir(parents=True)
    for number in range(30):
        (folder / f"{number}.md").write_text(f"# Note {number}\n\nwords of {number}")
    return folder


@pytest.fixture
def served(make_app: Callable[..., App], notes: Path) -> App:
    jobs = JobsSettings(broker="none", roots=(notes.parent,), retry_s=0.01)  # type: ignore[arg-type]
    sources = {
        "wiki": SourceSettings(folder=notes, collection="pages"),
        "other": SourceSettings(folder=notes),
    }
    return make_app(jobs=jobs, sources=sources)


@pytest.fixture
def client(served: App) -> Iterator[TestClient]:
    with TestClient(create_api(served), base_url=LOOPBACK, raise_server_exceptions=False) as client:
        yield client


def run(app: App, client: TestClient, **body: Any) -> dict[str, Any]:
    begun = client.post("/v1/jobs", json={"kind": "sync", **body})
    assert begun.status_code == 202, begun.text
    assert app.jobs.wait(60)
    found: dict[str, Any] = client.get(f"/v1/jobs/{begun.json()['id']}").json()
    return found


def test_a_job_keeps_a_collection_in_step(served: App, client: TestClient, notes: Path) -> None:
    first = run(served, client, collection="pages", source="wiki")
    assert (first["state"], first["result"]["created"], first["result"]["files_read"]) == ("done", 30, 30)
    (notes / "1.md").unlink()
    (notes / "2.md").rename(notes / "two.md")
    (notes / "empty.txt").write_text("")
    (notes / "3.md").write_text("# Note 3\n\nother words")
    second = run(served, client, collection="pages", source="wiki")["result"]
    assert [second[key] for key in ("created", "updated", "removed", "renamed")] == [1, 1, 2, 1]
    assert second["notes"] == ["empty.txt: empty"]
    counts = served.catalog.engine("pages").store.reader().counts()
    assert (counts.documents, counts.encoded) == (29, counts.passages), "the changed one is encoded too"
    for path in list(notes.glob("*.md"))[:25]:
        path.unlink()
    third = run(served, client, collection="pages", source="wiki")
    assert third["state"] == "failed"
    assert "most documents of this source are gone" in third["error"]
    assert served.catalog.engine("pages").store.reader().counts().documents == 29
    assert run(served, client, collection="pages", source="wiki", force=True)["result"]["removed"] == 25


def test_a_folder_below_the_roots(served: App, client: TestClient, notes: Path) -> None:
    assert run(served, client, collection="mine", folder=str(notes))["result"]["created"] == 30
    for body, said in (
        ({"folder": "/etc"}, "not among those that jobs may read"),
        ({"folder": str(notes / "nothing")}, "no such file or folder"),
        ({}, "sync with what?"),
        ({"source": "wiki", "folder": str(notes)}, "sync with what?"),
        ({"source": "wiki"}, "no such source of this collection"),
        ({"source": "unheard of"}, "no such source of this collection"),
        ({"source": "wiki", "kind": "ingest"}, "for jobs of the kind sync"),
    ):
        answer = client.post("/v1/jobs", json={"kind": "sync", "collection": "mine", **body})
        assert answer.status_code in (400, 404), body
        assert said in error(answer)["message"]


def test_sources_are_in_step_by_schedule(make_app: Callable[..., App], notes: Path) -> None:
    sources = {
        "wiki": SourceSettings(folder=notes, collection="pages", every_hours=6),
        "broken": SourceSettings(folder=notes / "nothing", every_hours=6),
        "other": SourceSettings(folder=notes),
    }
    served = make_app(jobs=JobsSettings(broker="none", retry_s=0.01), sources=sources)  # type: ignore[arg-type]
    sweep(served)
    sweep(served)  # it is not due again
    assert served.jobs.wait(60)
    jobs = {job.collection: job for job in served.job_records.list()}
    assert len(served.job_records.list()) == 2
    assert (jobs["pages"].kind, jobs["pages"].state, jobs["pages"].result["created"]) == ("sync", "done", 30)
    assert jobs["broken"].state == "failed"
    assert "no such file or folder" in jobs["broken"].error
    record = served.catalog.records().get("synced", "wiki")
    assert record is not None
    served.catalog.records().add([type(record)("synced", "wiki", {"at": record.body["at"] - 7 * 3600})])
    (notes / "1.md").unlink()
    sweep(served)
    assert served.jobs.wait(60)
    assert served.job_records.list()[0].result["removed"] == 1
