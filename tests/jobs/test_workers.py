"""Workers behind real brokers: what is sent gets done, whoever dies, whatever is delivered twice or out of order."""

from __future__ import annotations

import random
import threading
import time
from contextlib import suppress

import httpx
import numpy as np
import pytest
from kombu.exceptions import OperationalError
from support.brokers import Files
from support.encoders import FakeDense
from support.services import SOAK
from support.workers import PATIENCE_S, Installation, all_encoded, rows, until, write

from hyblink.app.application import App
from hyblink.app.core.errors import UnavailableError
from hyblink.app.core.logs import request_id
from hyblink.app.jobs.celery_jobs import ANNOTATE, ENCODE, QUEUES, RUN, celery_for
from hyblink.app.operations.encoding import encode_now
from hyblink.app.operations.jobs import start_ingestion, start_rebuild
from hyblink.app.operations.queues import queues_of

ROWS = 20_000 if SOAK else 2_000
KILLS = 30 if SOAK else 4


def test_a_job_is_read_and_its_passages_encoded_by_a_worker(installation: Installation, here: App) -> None:
    documents = rows(300, 1)
    path = write(installation.folder / "rows.jsonl", documents)
    with path.open("a") as out:
        out.write('{"id": "bad"}\nnot json\n')
    job = start_ingestion(here, "default", {"folder": str(path)}, by="me")
    assert here.job_records.get(job.id).state == "queued"
    until(lambda: here.jobs.lengths()["ingest"] >= 1, 20, installation)
    assert set(here.jobs.lengths()) == set(QUEUES)
    installation.start_worker("w1")
    until(lambda: here.job_records.get(job.id).state == "done" and all_encoded(here), 90, installation)
    done = here.job_records.get(job.id)
    assert (done.by, done.attempts, done.error) == ("me", 0, "")
    told = {name: done.progress[name] for name in ("created", "updated", "unchanged", "rejected", "rows")}
    assert told == {"created": 300, "updated": 0, "unchanged": 0, "rejected": 2, "rows": 302}
    assert done.progress["bytes"] == done.progress["bytes_total"] == path.stat().st_size
    assert {(one["file"], one["line"]) for one in here.job_records.rejects(job.id)} == {
        ("rows.jsonl", 301),
        ("rows.jsonl", 302),
    }
    # The same rows again: nothing changes, nothing is encoded.
    change = here.catalog.engine("default").store.change()
    again = start_ingestion(here, "default", {"folder": str(path)})
    until(lambda: here.job_records.get(again.id).state == "done", 60, installation)
    assert here.job_records.get(again.id).progress["unchanged"] == 300
    assert here.jobs.lengths()["ingest"] == 0
    installation.broker.kill()
    if not isinstance(installation.broker, Files):
        with pytest.raises(UnavailableError, match="broker does not answer"):
            here.jobs.lengths()
    assert here.catalog.engine("default").store.change() == change


def test_a_cancelled_job_stops_and_a_resumed_one_goes_on(installation: Installation, here: App) -> None:
    path = write(installation.folder / "rows.jsonl", rows(3000, 2))
    job = start_ingestion(here, "default", {"folder": str(path)})
    installation.start_worker("w1")
    until(lambda: here.job_records.get(job.id).progress.get("rows", 0) > 0, 60, installation)
    here.job_records.cancel(job.id)
    until(lambda: here.job_records.get(job.id).state == "cancelled", 30, installation)
    stopped = here.job_records.get(job.id).progress["rows"]
    assert 0 < stopped < 3000
    stored = here.catalog.engine("default").store.reader().counts().documents
    assert stored < 3000
    here.job_records.resume(job.id)
    until(lambda: here.job_records.get(job.id).state == "done" and all_encoded(here), 90, installation)
    done = here.job_records.get(job.id)
    assert here.catalog.engine("default").store.reader().counts().documents == 3000
    assert done.progress["rows"] == 3000
    assert 3000 - 50 <= done.progress["created"] <= 3000, "the batch in hand when it was cancelled may go uncounted"


def test_a_generation_is_built_although_its_worker_dies(installation: Installation, here: App) -> None:
    here.documents.bulk("default", rows(400, 6), encode=False)
    encode_now(here, "default")
    installation.slow_s, installation.encoder = 0.01, "dense:fake:new"
    job = start_rebuild(here, "default", "another encoder")
    installation.start_worker("w1")
    until(lambda: here.job_records.get(job.id).progress.get("encoded", 0) > 0, 90, installation)
    installation.kill("w1")
    assert here.catalog.current("default") == "g000001"
    written = here.documents.bulk("default", [{"id": "late", "text": "zebra"}], encode=False)
    assert [item.status for item in written.items] == ["created"]
    installation.start_worker("w2")
    until(lambda: here.job_records.get(job.id).state in {"done", "failed"}, 120, installation)
    done = here.job_records.get(job.id)
    assert (done.state, done.error) == ("done", "")
    assert done.fence >= 2
    current = here.catalog.current("default")
    assert current == done.result["generation"]
    assert [one.id for one in here.catalog.generations("default")] == ["g000001", current], "nothing half-built is left"
    engine = here.catalog.engine("default")
    assert engine.record.dense_encoder == "dense:fake:new"
    counts = engine.store.reader().counts()
    assert (counts.documents, counts.passages - counts.encoded) == (401, 0)
    assert engine.check() == []


def test_workers_outlive_a_broker_that_is_killed_with_their_tasks(installation: Installation, here: App) -> None:
    """Killed at any moment: with tasks taken, running, finished and not yet confirmed."""
    if isinstance(installation.broker, Files):
        pytest.skip("a folder does not end")
    draw = random.Random(5)
    here.documents.bulk("default", rows(50, 1), encode=False)
    for name in ("w1", "w2"):
        installation.start_worker(name)
    until(lambda: len(queues_of(here)["workers"]) == 2, 60, installation)
    for _ in range(80 if SOAK else 8):
        celery = celery_for(installation.settings)
        with suppress(OperationalError):  # a broker that listens already, and does not yet answer
            for late in draw.choices([None, None, 1, 3], k=40):
                celery.send_task(ENCODE, args=["default", "g000001"], queue="encode", countdown=late)
        celery.close()
        time.sleep(draw.uniform(0, 2.5))
        installation.broker.kill()
        time.sleep(draw.uniform(0, 1.5))
        installation.broker.start()
        assert [one.poll() for one in installation.processes.values()] == [None, None], installation.logs()
    here.documents.bulk("default", [{"id": "late", "text": "zebra"}])
    until(lambda: all_encoded(here), 90, installation)


def test_poisoned_messages_are_refused_and_the_worker_lives(installation: Installation, here: App) -> None:
    installation.start_worker("w1")
    celery = celery_for(installation.settings)
    evil = [
        (ENCODE, ["../../etc", "g000001"]),
        (ENCODE, ["nothing", "g000001"]),
        (ENCODE, ["default", "g000099"]),
        (ANNOTATE, ["nothing"]),
        (ENCODE, ["default"]),
        (ENCODE, [{"a": 1}, ["b"]]),
        (RUN, ["j' OR 1=1"]),
        (RUN, ["j20200101T000000000000-abcdef"]),
        ("os.system", ["true"]),
    ]
    for name, args in evil:
        celery.send_task(name, args=args, queue="encode")
    with celery.connection_for_write() as connection, connection.Producer() as producer:
        for body, kind in (
            (b"\x80\x04\x95", "application/x-python-serialize"),
            (b"{", "application/json"),
            (b"[]", "text/plain"),
        ):
            producer.publish(body, routing_key="encode", exchange="", content_type=kind, content_encoding="binary")
    if installation.broker.url == "filesystem":
        (installation.folder / "data" / "broker" / "00000000000000000000-x.encode.msg").write_text("{half")
    celery.close()
    here.documents.bulk("default", rows(20, 3))
    until(lambda: all_encoded(here), 90, installation)
    until(lambda: len(here.job_records.dead_letters()) >= 3, 30, installation)
    assert installation.processes["w1"].poll() is None
    token = request_id.set("asked-by-me")
    here.jobs.encode("not a name", "g000001", [1])
    request_id.reset(token)
    log = installation.folder / "w1.log"
    until(lambda: '"request_id":"asked-by-me"' in log.read_text(), 30, installation)
    until(lambda: "Refusing to deserialize" in log.read_text(), 30, installation)
    errors = [letter.error for letter in here.job_records.dead_letters()]
    assert any("a task with a bad id" in error for error in errors)
    # What was dropped while its task waited is no failure.
    told = [arg for letter in here.job_records.dead_letters() for arg in letter.args]
    assert not {"nothing", "g000099"} & set(told)
    assert here.catalog.names() == ["default"]


def test_whoever_is_killed_nothing_is_lost_and_nothing_is_done_twice(installation: Installation, here: App) -> None:
    """Workers, API and broker are killed in turn while a job reads and clients write; tasks come twice and shuffled."""
    draw = random.Random(7)
    documents = rows(ROWS, 4)
    path = write(installation.folder / "rows.jsonl", documents)
    model = {one["id"]: one["text"] for one in documents}
    installation.slow_s = 0.01
    installation.start_api()
    for name in ("w1", "w2"):
        installation.start_worker(name)
    url = f"http://127.0.0.1:{installation.port}"
    ended = threading.Event()
    acknowledged: dict[str, str | None] = {}
    job = start_ingestion(here, "default", {"folder": str(path)})

    def write_by_api() -> None:
        """Documents of its own, changed and deleted; what was not acknowledged is sent again until it is."""
        mine = random.Random(9)
        with httpx.Client(base_url=url, timeout=30) as client:
            for number in range(10_000):
                if ended.is_set():
                    return
                one = {"id": f"api{mine.randint(0, 200)}", "text": f"version {number} {mine.random()}"}
                delete = mine.random() < 0.2
                while not ended.is_set():
                    try:
                        if delete:
                            answer = client.delete(f"/v1/documents/{one['id']}")
                            accepted = answer.status_code in {200, 404}
                        else:
                            answer = client.post("/v1/documents:bulk", json={"documents": [one]})
                            accepted = answer.status_code == 200 and not answer.json()["errors"]
                    except httpx.HTTPError:
                        accepted = False
                    if accepted:
                        acknowledged[one["id"]] = None if delete else one["text"]
                        break
                    time.sleep(0.2)

    def duplicate() -> None:
        """Send tasks that were sent already, in any order, some of them late."""
        mine = random.Random(11)
        while not ended.wait(0.3):
            try:
                celery = celery_for(installation.settings)
                for _ in range(5):
                    late = mine.choice([None, None, 1, 3])
                    if mine.random() < 0.5:
                        celery.send_task(RUN, args=[job.id], queue="ingest", countdown=late)
                    else:
                        celery.send_task(ENCODE, args=["default", "g000001"], queue="encode", countdown=late)
                celery.close()
            except Exception:  # the broker has been killed
                continue

    threads = [threading.Thread(target=write_by_api), threading.Thread(target=duplicate)]
    for thread in threads:
        thread.start()
    killed = 0
    try:
        victims = ["w1", "api", "w2"] + ([] if isinstance(installation.broker, Files) else ["broker"])
        while here.job_records.get(job.id).state != "done" or not all_encoded(here):
            if killed >= KILLS:
                time.sleep(0.5)
                continue
            time.sleep(draw.uniform(0.5, 4.0))
            victim = victims[killed % len(victims)]
            if victim == "broker":
                installation.broker.kill()
                time.sleep(draw.uniform(0, 2))
                installation.broker.start()
            else:
                installation.kill(victim)
                installation.start_api() if victim == "api" else installation.start_worker(victim)
            killed += 1
            if here.job_records.get(job.id).state == "failed":
                pytest.fail(f"{here.job_records.get(job.id)}\n{installation.logs()}")
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert killed >= KILLS, "there was not enough to do for so many"
    until(lambda: all_encoded(here), PATIENCE_S, installation)
    # A write that was under way when the end came was perhaps stored without having been acknowledged: look again.
    engine = here.catalog.engine("default")
    reader = engine.store.reader()
    expected = {**model, **{name: text for name, text in acknowledged.items() if text is not None}}
    stored = {one.document.id: one.document.text for one in reader.export()}
    unsure = {name for name in stored.keys() ^ expected.keys() if name.startswith("api")}
    assert len(unsure) <= 1
    assert {name: text for name, text in stored.items() if not name.startswith("api")} == model
    differ = [name for name in stored.keys() & expected.keys() if stored[name] != expected[name]]
    assert len(differ) + len(unsure) <= 1, (differ, unsure)
    assert len(acknowledged) > 5
    # Every passage has one vector, the right one, and stands once in every index.
    live = reader.live_rows()
    found, vectors = reader.vectors(live)
    assert found.tolist() == live.tolist()
    passages = reader.passages(live)
    fake = FakeDense()
    right = fake.encode_passages([passages[int(row)].title for row in live], [passages[int(row)].text for row in live])
    np.testing.assert_allclose(vectors, right, atol=2e-3)
    assert engine.check() == []
    snapshot = engine.snapshot()
    assert snapshot.dense is not None
    assert snapshot.dense.vectors == len(live)
    assert here.job_records.dead_letters() == []
