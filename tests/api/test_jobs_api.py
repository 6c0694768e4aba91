"""Uploads, jobs and dead letters through the HTTP door, and what is refused there."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from support.documents import random_documents

from hyblink.app.access.keys import KeyStore
from hyblink.app.api.application import create_api
from hyblink.app.application import App
from hyblink.app.core.errors import UnavailableError
from hyblink.app.core.settings import IngestSettings, JobsSettings
from hyblink.app.jobs.job import TakenOverError
from hyblink.app.jobs.records import JobRecords
from hyblink.app.operations.jobs import start_ingestion

LOOPBACK = "http://127.0.0.1"


@pytest.fixture
def served(make_app: Callable[..., App], tmp_path: Path) -> App:
    (tmp_path / "shared").mkdir()
    jobs = JobsSettings(
        broker="none", roots=(tmp_path / "shared",), max_upload_bytes=100_000, retry_s=0.01, max_rejects=3
    )  # type: ignore[arg-type]
    return make_app(jobs=jobs, ingest=IngestSettings(batch_documents=10))


@pytest.fixture
def client(served: App) -> Iterator[TestClient]:
    with TestClient(create_api(served), base_url=LOOPBACK, raise_server_exceptions=False) as client:
        yield client


def ended(app: App, client: TestClient, job_id: str) -> dict[str, Any]:
    assert app.jobs.wait(60)  # type: ignore[union-attr]
    found: dict[str, Any] = client.get(f"/v1/jobs/{job_id}").json()
    return found


def lines(count: int, seed: int = 1) -> bytes:
    return b"".join(json.dumps(one).encode() + b"\n" for one in random_documents(count, seed=seed))


def test_an_upload_becomes_a_searchable_collection(served: App, client: TestClient) -> None:
    sent = gzip.compress(lines(60) + b"broken\n" * 5)
    upload = client.post("/v1/uploads", params={"name": "corpus.jsonl.gz"}, content=sent)
    assert upload.status_code == 201
    assert upload.json()["bytes"] == len(sent)
    begun = client.post("/v1/jobs", json={"collection": "notes", "upload": upload.json()["id"]})
    assert begun.status_code == 202
    job = ended(served, client, begun.json()["id"])
    assert job["state"] == "done", job
    assert (job["progress"]["created"], job["progress"]["rejected"], job["progress"]["rows"]) == (60, 5, 65)
    assert "owner" not in job
    rejects = client.get(f"/v1/jobs/{job['id']}/rejects").json()["rejects"]
    assert [(one["line"], one["raw"]) for one in rejects] == [(63, "broken"), (62, "broken"), (61, "broken")], (
        "three kept"
    )
    hits = client.post("/v1/search", json={"collection": "notes", "query": "alpha beta"}).json()
    assert hits["hits"]
    assert hits["missing"] == [], "vectors have been made as well"
    assert [one["id"] for one in client.get("/v1/jobs", params={"state": "done"}).json()["jobs"]] == [job["id"]]
    assert client.get("/v1/jobs", params={"collection": "other"}).json() == {"jobs": []}
    queues = client.get("/v1/admin/queues").json()
    assert queues == {
        "queues": {"models": 0, "jobs": 0},
        "stages": [],
        "workers": [],
        "jobs": {"queued": 0, "running": 0, "waiting": 0, "cancelling": 0, "failed": 0},
        "waiting": {"notes": 0},
        "dead_letters": 0,
    }
    metrics = client.get("/metrics").text
    for line in (
        'hyblink_passages_waiting{collection="notes"} 0.0',
        'hyblink_jobs{state="failed"} 0.0',
        "hyblink_workers 0.0",
    ):
        assert line in metrics


@pytest.mark.parametrize(
    "name",
    [
        "../x.jsonl",
        "/etc/x.jsonl",
        "a/b.jsonl",
        "..",
        "",
        ".hidden.jsonl",
        "x.exe",
        "x.jsonl\x00",
        "x" * 300 + ".jsonl",
        "a\nb.csv",
    ],
)
def test_bad_upload_names_are_refused(served: App, client: TestClient, name: str) -> None:
    answer = client.post("/v1/uploads", params={"name": name}, content=b"{}")
    assert answer.status_code == 400, answer.text
    assert not list(served.settings.data_dir.glob("uploads/*"))


def test_an_upload_over_the_limit_leaves_nothing(served: App, client: TestClient) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(300):
            yield b"x" * 1000

    for content in (b"x" * 100_001, endless()):
        answer = client.post("/v1/uploads", params={"name": "a.txt"}, content=content)
        assert answer.status_code == 413, answer.text
    assert not list(served.settings.data_dir.glob("uploads/*"))


def test_only_folders_below_the_roots_are_read(served: App, client: TestClient, tmp_path: Path) -> None:
    root = tmp_path / "shared"
    (root / "ok.jsonl").write_bytes(lines(5))
    (tmp_path / "secret.jsonl").write_bytes(lines(5))
    (root / "link.jsonl").symlink_to(tmp_path / "secret.jsonl")
    (tmp_path / "shared-not").mkdir()
    for wanted in ("secret.jsonl", "shared/../secret.jsonl", "shared/link.jsonl", "shared-not", "shared/\x00"):
        answer = client.post("/v1/jobs", json={"folder": str(tmp_path / wanted)})
        assert answer.status_code == 400, (wanted, answer.text)
    assert client.post("/v1/jobs", json={"folder": "/etc/passwd"}).status_code == 400
    assert client.post("/v1/jobs", json={"folder": str(root / "none.jsonl")}).status_code == 404
    assert client.post("/v1/jobs", json={"upload": "u../../x"}).status_code == 404
    assert client.post("/v1/jobs", json={}).status_code == 400
    assert client.post("/v1/jobs", json={"upload": "u", "folder": str(root)}).status_code == 400
    assert client.post("/v1/jobs", json={"folder": str(root), "format": "exe"}).status_code == 400
    assert client.get("/v1/jobs").json() == {"jobs": []}
    good = client.post("/v1/jobs", json={"folder": str(root / "ok.jsonl")})
    assert ended(served, client, good.json()["id"])["progress"]["created"] == 5


def test_a_link_that_is_made_later_is_not_followed_either(served: App, tmp_path: Path) -> None:
    path = tmp_path / "shared" / "rows.jsonl"
    path.write_bytes(lines(5))
    job = start_ingestion(served, "default", {"folder": str(path)})
    assert served.jobs.wait(60)  # type: ignore[union-attr]
    assert served.job_records.get(job.id).state == "done"
    (tmp_path / "secret.jsonl").write_bytes(lines(5))
    path.unlink()
    path.symlink_to(tmp_path / "secret.jsonl")
    later = served.job_records.create("ingest", "default", {"folder": str(path)})  # as if it had been asked for before
    assert served.jobs.wait(60)  # type: ignore[union-attr]
    assert served.job_records.get(later.id).state == "failed"
    assert "not among those that jobs may read" in served.job_records.get(later.id).error


def test_roles_and_collections_hold_for_jobs(served: App, tmp_path: Path) -> None:
    keys = KeyStore(served.catalog.records())
    made = {role: keys.create(role, "now") for role in ("search", "ingest", "admin")}
    other = keys.create("ingest", "now", ["elsewhere"])
    (tmp_path / "shared" / "a.jsonl").write_bytes(lines(3))
    with TestClient(create_api(served, host="0.0.0.0"), raise_server_exceptions=False) as client:

        def call(method: str, path: str, key: str | None, **more: Any) -> int:
            headers = {"Authorization": f"Bearer {key}"} if key else {}
            return client.request(method, path, headers=headers, **more).status_code

        body = {"folder": str(tmp_path / "shared" / "a.jsonl")}
        begun = client.post("/v1/jobs", json=body, headers={"Authorization": f"Bearer {made['ingest']}"}).json()
        assert begun["by"] == made["ingest"].split("_")[1]
        assert served.jobs.wait(60)  # type: ignore[union-attr]
        one = f"/v1/jobs/{begun['id']}"
        routes = [
            ("POST", "/v1/uploads?name=a.txt", {"content": b"x"}, "ingest", True),
            ("POST", "/v1/jobs", {"json": body}, "ingest", False),
            ("GET", "/v1/jobs", {}, "ingest", True),
            ("GET", one, {}, "ingest", False),
            ("GET", f"{one}/rejects", {}, "ingest", False),
            ("POST", f"{one}/cancel", {}, "ingest", False),
            ("POST", f"{one}/resume", {}, "ingest", False),
            ("GET", "/v1/admin/queues", {}, "admin", False),
            ("GET", "/v1/admin/generations", {}, "admin", False),
            ("POST", "/v1/admin/generations", {"json": {"collection": "default"}}, "admin", False),
            ("POST", "/v1/admin/generations/g000001/publish", {}, "admin", False),
            ("POST", "/v1/admin/rollback", {}, "admin", False),
            ("GET", "/v1/admin/dead-letters", {}, "admin", False),
            ("POST", "/v1/admin/dead-letters/d20260101T000000000000-abcdef/replay", {}, "admin", False),
        ]
        for method, path, more, role, elsewhere in routes:
            assert call(method, path, None, **more) == 401, path
            assert call(method, path, "hyb_x_y", **more) == 401, path
            assert call(method, path, made["search"], **more) == 403, path
            assert (call(method, path, made["ingest"], **more) == 403) == (role == "admin"), path
            assert call(method, path, made["admin"], **more) not in {401, 403}, path
            assert (call(method, path, other, **more) == 403) == (not elsewhere), path
        listed = client.get("/v1/jobs", headers={"Authorization": f"Bearer {other}"}).json()
        assert listed == {"jobs": []}, "jobs of other collections are not shown"


def test_generations_are_built_published_and_rolled_back_over_http(served: App, client: TestClient) -> None:
    client.post("/v1/documents:bulk", json={"documents": random_documents(40, seed=1)})
    assert served.jobs.wait(60)  # type: ignore[union-attr]
    before = client.post("/v1/search", json={"query": "alpha beta"}).json()
    begun = client.post("/v1/admin/generations", json={"collection": "default", "note": "try"})
    assert begun.status_code == 202
    job = ended(served, client, begun.json()["id"])
    assert (job["state"], job["result"]) == ("done", {"generation": "g000002", "copied": 40})
    after = client.post("/v1/search", json={"query": "alpha beta"}).json()
    assert after["generation"] == "g000002"
    assert [(one["doc_id"], one["score"]) for one in after["hits"]] == [
        (one["doc_id"], pytest.approx(one["score"])) for one in before["hits"]
    ]
    listed = client.get("/v1/admin/generations").json()
    assert listed["current"] == "g000002"
    assert [(one["id"], one["note"], one["parent"]) for one in listed["generations"]] == [
        ("g000001", "", ""),
        ("g000002", "try", "g000001"),
    ]
    of_old = client.post("/v1/search", json={"query": "alpha beta", "generation": "g000001"}).json()
    assert (of_old["generation"], of_old["hits"]) == ("g000001", before["hits"])
    searcher = KeyStore(served.catalog.records()).create("search", "now")
    with TestClient(create_api(served, host="0.0.0.0")) as outside:
        for generation, status in ((None, 200), ("g000001", 403)):
            asked = {"query": "alpha", **({"generation": generation} if generation else {})}
            headers = {"Authorization": f"Bearer {searcher}"}
            assert outside.post("/v1/search", json=asked, headers=headers).status_code == status
    client.headers["Authorization"] = f"Bearer {KeyStore(served.catalog.records()).create('admin', 'now')}"
    assert client.post("/v1/admin/rollback").json()["current"] == "g000001"
    assert client.post("/v1/admin/generations/g000002/publish").json()["current"] == "g000002"
    assert client.post("/v1/admin/generations/g000009/publish").status_code == 404
    assert client.post("/v1/admin/generations", json={"collection": "none"}).status_code == 404
    assert client.get("/v1/admin/generations", params={"collection": "none"}).status_code == 404
    acts = [(one["act"], one["outcome"]) for one in client.get("/v1/admin/audit").json()["acts"]]
    assert ("POST /v1/admin/rollback", "200") in acts


def test_what_may_pass_is_tried_again_and_what_does_not_becomes_a_dead_letter(
    served: App, client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "shared" / "rows.jsonl"
    path.write_bytes(lines(30))
    upsert, failures = served.documents.upsert, iter([True, False, True, False, False])

    def sometimes(*args: Any, **more: Any) -> Any:
        if next(failures, False):
            raise UnavailableError("the store is away")
        return upsert(*args, **more)

    monkeypatch.setattr(type(served.documents), "upsert", lambda _, *args, **more: sometimes(*args, **more))
    begun = client.post("/v1/jobs", json={"folder": str(path)}).json()
    deadline = threading.Event()
    for _ in range(100):
        if ended(served, client, begun["id"])["state"] == "done":
            break
        deadline.wait(0.05)
    done = ended(served, client, begun["id"])
    assert (done["state"], done["progress"]["created"]) == ("done", 30), done
    monkeypatch.setattr(type(served.documents), "upsert", lambda *_, **__: 1 / 0)
    path.write_bytes(lines(30, seed=5))
    begun = client.post("/v1/jobs", json={"folder": str(path)}).json()
    failed = ended(served, client, begun["id"])
    assert failed["state"] == "failed"
    assert "ZeroDivisionError" in failed["error"]
    (letter,) = client.get("/v1/admin/dead-letters").json()["dead_letters"]
    assert letter["args"] == [begun["id"]]
    assert "ZeroDivisionError" in letter["detail"]
    monkeypatch.undo()
    assert client.post(f"/v1/admin/dead-letters/{letter['id']}/replay").status_code == 200
    assert client.post(f"/v1/admin/dead-letters/{letter['id']}/replay").status_code == 404
    again = ended(served, client, begun["id"])
    assert (again["state"], again["error"]) == ("done", "")
    assert client.get("/v1/admin/dead-letters").json() == {"dead_letters": []}
    assert client.post(f"/v1/jobs/{begun['id']}/cancel").status_code == 409
    assert client.post(f"/v1/jobs/{begun['id']}/resume").status_code == 409


def test_a_worker_that_was_taken_for_dead_writes_nothing_more(served: App) -> None:
    quiet = JobRecords(served.catalog.records(), _Nobody(), silent_s=0.0, max_attempts=5, retry_s=1)
    job = quiet.create("ingest", "default", {})
    first = quiet.take(job.id)
    second = quiet.take(job.id)
    assert first is not None
    assert second is not None
    assert second.job.fence == first.job.fence + 1
    for act in (lambda: first.report(progress={"rows": 1}), lambda: first.done({}), lambda: first.again()):
        with pytest.raises(TakenOverError):
            act()
    second.report(progress={"rows": 2})
    assert quiet.get(job.id).progress == {"rows": 2}
    alive = JobRecords(served.catalog.records(), _Nobody(), silent_s=60, max_attempts=5, retry_s=1)
    assert alive.take(job.id) is None, "it is running"
    second.done({"all": True})
    assert alive.take(job.id) is None, "it has ended"
    assert alive.take("j20260101T000000000000-abcdef") is None


def test_a_job_whose_workers_all_die_fails_in_the_end(served: App) -> None:
    deadly = JobRecords(served.catalog.records(), _Nobody(), silent_s=0.0, max_attempts=3, retry_s=1)
    job = deadly.create("ingest", "default", {})
    taken = [deadly.take(job.id) for _ in range(4)]
    assert [one is not None for one in taken] == [True, True, True, False]
    assert deadly.get(job.id).state == "failed"
    assert "died" in deadly.get(job.id).error


class _Nobody:
    """Jobs that nobody runs."""

    def encode(self, *_: object) -> None: ...

    def annotate(self, *_: object) -> None: ...

    def run(self, *_: object) -> None: ...

    def close(self) -> None: ...
