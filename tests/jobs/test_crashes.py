"""A model of what was acknowledged, and everything killed while all kinds of work go on.

The model is a dictionary. One client writes and deletes documents and entities through the API, drops and makes
collections, starts jobs that read files and build generations, loads a knowledge base by command, and has indexes
merged. What is not acknowledged is sent again until it is. Meanwhile workers, API, loading command, broker and storage
node are killed in a drawn order. In the end storage holds what the model says, and `fsck` finds nothing.
"""

from __future__ import annotations

import itertools
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from kombu.exceptions import OperationalError
from support.brokers import Files, broker, missing
from support.encoders import FakeDense, use_fake_encoder
from support.services import SOAK, missing_service
from support.workers import PATIENCE_S, Installation, rows, until, write

from hyblink.app.application import App
from hyblink.app.bootstrap import build
from hyblink.app.core.errors import HyblinkError
from hyblink.app.core.settings import OpenSearchSettings
from hyblink.app.core.types.collections import CollectionSpec
from hyblink.app.engines.opensearch.local.cluster import Cluster
from hyblink.app.jobs.celery_jobs import MERGE, SWEEP, TIDY, celery_for
from hyblink.app.operations.collections import ensure_collection, fsck

KILLS = 35 if SOAK else 7
"""Of each pair of an engine and a broker: 210 in all, 21 in CI, which tries three of the six pairs."""
pytestmark = pytest.mark.services
_KINDS = ("filesystem", "redis", "rabbitmq")
_PAIRS = [(engine, kind) for kind in _KINDS for engine in ("embedded", "opensearch")]
_IN_CI = {("embedded", "filesystem"), ("embedded", "redis"), ("opensearch", "rabbitmq")}
_NUMBERS = itertools.count()


@pytest.fixture(
    params=[
        pytest.param(pair, id="-".join(pair), marks=[] if pair in _IN_CI else [pytest.mark.soak]) for pair in _PAIRS
    ]
)
def attacked(
    request: pytest.FixtureRequest, tmp_path: Path, local_cluster: Callable[..., Cluster]
) -> Iterator[tuple[Installation, Cluster | None]]:
    engine, kind = request.param
    if lacking := missing(kind):
        missing_service(lacking)
    made = Installation(tmp_path, broker(kind, tmp_path / "broker"))
    cluster = local_cluster() if engine == "opensearch" else None
    if cluster is not None:
        state = cluster.state()
        assert state is not None
        made.use_opensearch(
            OpenSearchSettings(
                hosts=(state.url,),
                prefix=f"crash-{os.getpid()}-{next(_NUMBERS)}",
                keep_removed_s=0,
                writer_lease_s=2,
                retries=1,
                timeout_s=10,
            )
        )
    made.broker.start()
    try:
        yield made, cluster
    finally:
        made.close()


class Client:
    """Does drawn work, each piece until it is acknowledged, and keeps the model."""

    def __init__(self, installation: Installation, here: App, draw: random.Random) -> None:
        self.installation, self.here, self.draw = installation, here, draw
        self.url = f"http://127.0.0.1:{installation.port}"
        self.documents: dict[str, dict[str, str]] = {"default": {}, "scratch": {}}
        self.entities: dict[str, str] = {}
        self.done: dict[str, int] = {}
        self.jobs: list[str] = []
        self._numbers = itertools.count()

    def step(self) -> None:
        """One piece of work."""
        kinds = {
            "write": 8, "delete": 3, "entity": 3, "forget": 1, "drop": 1, "read": 2, "rebuild": 1, "merge": 1, "load": 1
        }  # fmt: skip
        kind = self.draw.choices(list(kinds), list(kinds.values()))[0]
        getattr(self, f"_{kind}")()
        self.done[kind] = self.done.get(kind, 0) + 1

    def _until(self, accepted: Callable[[httpx.Client], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        last = "no answer"

        def keep(answer: httpx.Response) -> None:
            nonlocal last
            last = f"{answer.request.method} {answer.request.url} {answer.status_code} {answer.read()[:500]!r}"

        with httpx.Client(base_url=self.url, timeout=30, event_hooks={"response": [keep]}) as client:
            while True:
                with suppress(httpx.HTTPError, HyblinkError):
                    if accepted(client):
                        return
                assert " 400 " not in last, last
                assert time.monotonic() < deadline, f"never acknowledged: {last}\n{self.installation.logs()}"
                time.sleep(0.2)

    def _write(self) -> None:
        name = self.draw.choice(["default", "default", "scratch"])
        new = {f"d{self.draw.randint(0, 60)}": f"version {next(self._numbers)} word{n}" for n in range(5)}
        body = {"documents": [{"id": key, "text": text} for key, text in new.items()]}

        def sent(client: httpx.Client) -> bool:
            answer = client.post("/v1/documents:bulk", params={"collection": name}, json=body)
            return answer.status_code == 200 and not answer.json()["errors"]

        self._until(sent)
        self.documents[name].update(new)

    def _delete(self) -> None:
        name = self.draw.choice(list(self.documents))
        one = f"d{self.draw.randint(0, 60)}"
        self._until(
            lambda client: client.delete(f"/v1/documents/{one}", params={"collection": name}).status_code in {200, 404}
        )
        self.documents[name].pop(one, None)

    def _entity(self) -> None:
        one, label = f"e{self.draw.randint(0, 20)}", f"Name {next(self._numbers)}"
        body = {"entities": [{"id": one, "title": label, "aliases": ["shared"]}]}

        def sent(client: httpx.Client) -> bool:
            answer = client.post("/v1/entities:bulk", params={"collection": "kb"}, json=body)
            return answer.status_code == 200 and not answer.json()["errors"]

        self._until(sent)
        self.entities[one] = label

    def _forget(self) -> None:
        one = f"e{self.draw.randint(0, 20)}"
        self._until(
            lambda client: client.delete(f"/v1/entities/{one}", params={"collection": "kb"}).status_code in {200, 404}
        )
        self.entities.pop(one, None)

    def _drop(self) -> None:
        """Drop a collection whose passages perhaps wait for vectors, and make it again."""

        def dropped(_: httpx.Client) -> bool:
            if "scratch" in self.here.catalog.names():
                self.here.catalog.delete("scratch")
            return "scratch" not in self.here.catalog.names()

        def made(_: httpx.Client) -> bool:
            ensure_collection(self.here, CollectionSpec("scratch"))
            return "scratch" in self.here.catalog.names()

        self._until(dropped)
        self.documents["scratch"] = {}
        self._until(made)

    def _job(self, route: str, body: dict[str, Any]) -> None:
        def sent(client: httpx.Client) -> bool:
            answer = client.post(route, json=body)
            if answer.status_code in {200, 201, 202}:
                self.jobs.append(answer.json()["id"])
            return answer.status_code in {200, 201, 202, 409}

        self._until(sent)

    def _read(self) -> None:
        new = rows(40, next(self._numbers), f"f{self.draw.randint(0, 3)}-")
        path = write(self.installation.folder / f"{next(self._numbers)}.jsonl", new)
        self.wait_for_jobs()  # two jobs that write the same ids have no right end
        self._job("/v1/jobs", {"collection": "default", "folder": str(path)})
        self.documents["default"].update({one["id"]: one["text"] for one in new})

    def _rebuild(self) -> None:
        self._job("/v1/admin/generations", {"collection": "default"})

    def _merge(self) -> None:
        with suppress(OperationalError, OSError):
            celery = celery_for(self.installation.settings)
            for task in (MERGE, TIDY, SWEEP):
                celery.send_task(task, queue="maintenance")
            celery.close()

    def _load(self) -> None:
        """`hyblink kb load` of 300 entities: killed, begun again, until it ends."""
        version = next(self._numbers)
        loaded = {f"kb{n}": f"Loaded {version} {n}" for n in range(300)}
        path = write(
            self.installation.folder / f"kb{version}.jsonl",
            [{"id": one, "title": label, "description": f"about {label}"} for one, label in loaded.items()],
        )

        def ended(_: httpx.Client) -> bool:
            self.installation.start("load", "load", str(path))
            process = self.installation.processes["load"]
            if self.draw.random() < 0.5:
                time.sleep(self.draw.uniform(0.3, 2.0))
                with suppress(KeyError, AssertionError):  # it has ended already, which is as good
                    self.installation.kill("load")
            status = process.wait(120)
            self.installation.processes.pop("load", None)
            return status == 0

        self._until(ended)
        self.entities.update(loaded)

    def wait_for_jobs(self) -> None:
        """Wait until all jobs have ended."""
        records = self.here.job_records

        def ended() -> bool:
            try:
                return all(records.get(job).state in {"done", "failed"} for job in self.jobs)
            except HyblinkError:
                return False

        until(ended, PATIENCE_S, self.installation)
        for job in self.jobs:
            assert records.get(job).state == "done", f"{records.get(job)}\n{self.installation.logs()}"
        self.jobs = []


def killer(
    installation: Installation, cluster: Cluster | None, draw: random.Random, killed: list[str], enough: threading.Event
) -> None:
    """Kill and start again, `KILLS` times, then set `enough`."""
    victims = ["w1", "api", "w2"]
    victims += [] if isinstance(installation.broker, Files) else ["broker"]
    victims += [] if cluster is None else ["node"]
    try:
        order = [*draw.sample(victims, len(victims)), *draw.choices(victims, k=KILLS)]
        for victim in order[:KILLS]:
            time.sleep(draw.uniform(1.0, 4.0))
            if victim == "broker":
                installation.broker.kill()
                time.sleep(draw.uniform(0, 2))
                installation.broker.start()
            elif victim == "node":
                assert cluster is not None
                node = cluster.state().nodes[0]  # type: ignore[union-attr]
                process = node.process()
                assert process is not None
                process.kill()
                time.sleep(draw.uniform(0, 3))
                cluster.restart_node(node.name)
            else:
                installation.kill(victim)
                installation.start_api() if victim == "api" else installation.start_worker(victim)
            killed.append(victim)
    finally:
        enough.set()


def test_what_was_acknowledged_is_there_and_nothing_else(attacked: tuple[Installation, Cluster | None]) -> None:
    installation, cluster = attacked
    here = build(installation.settings)
    use_fake_encoder(here)
    for spec in (CollectionSpec("default"), CollectionSpec("scratch"), CollectionSpec("kb", kind="entities")):
        ensure_collection(here, spec)
    installation.slow_s = 0.005
    installation.start_api()
    for name in ("w1", "w2"):
        installation.start_worker(name)
    seed = int(os.environ.get("HYBLINK_SEED", "1"))
    client = Client(installation, here, random.Random(seed))
    killed: list[str] = []
    enough = threading.Event()
    thread = threading.Thread(target=killer, args=(installation, cluster, random.Random(seed), killed, enough))
    thread.start()
    try:
        while not enough.is_set() or len(client.done) < 9:
            client.step()
    finally:
        thread.join()
    assert len(killed) == KILLS
    client.wait_for_jobs()
    print(f"killed {killed}; done {client.done}")
    try:
        until(lambda: _encoded(here), PATIENCE_S, installation)
        for collection, expected in client.documents.items():
            stored = {one.document.id: one.document.text for one in _reader(here, collection).export()}
            assert stored == expected, collection
        assert {one.document.id: one.document.title for one in _reader(here, "kb").export()} == client.entities
        for collection in ("default", "scratch", "kb"):
            _vectors_are_right(here, collection)
            assert fsck(here, collection) == []
        assert set(here.catalog.names()) == {"default", "scratch", "kb"}
        kept = [one.id for one in here.catalog.generations("default")]
        assert here.catalog.current("default") in kept
        assert here.job_records.dead_letters() == []
    finally:
        if cluster is not None:
            for collection in here.catalog.names():
                here.catalog.delete(collection)
        here.close()


def _reader(app: App, collection: str) -> Any:
    return app.catalog.engine(collection).store.reader()


def _encoded(app: App) -> bool:
    counts = [_reader(app, name).counts() for name in app.catalog.names()]
    return all(one.passages == one.encoded for one in counts)


def _vectors_are_right(app: App, collection: str) -> None:
    """Every passage has one vector, that of its text, and stands once in the index of vectors."""
    reader = _reader(app, collection)
    live = reader.live_rows()
    found, vectors = reader.vectors(live)
    assert found.tolist() == live.tolist()
    passages = reader.passages(live)
    if not len(live):
        return
    right = FakeDense().encode_passages(
        [passages[int(row)].title for row in live], [passages[int(row)].text for row in live]
    )
    np.testing.assert_allclose(vectors, right, atol=2e-3)
    dense = app.catalog.engine(collection).snapshot().dense
    assert dense is not None
    assert dense.vectors == len(live)


def test_three_services_over_one_cluster(local_cluster: Callable[..., Cluster], tmp_path: Path) -> None:
    """Each takes writes, one is killed again and again: what any acknowledged, the others find at once."""
    state = local_cluster().state()
    assert state is not None
    made = []
    options = OpenSearchSettings(
        hosts=(state.url,),
        prefix=f"three-{os.getpid()}-{next(_NUMBERS)}",
        keep_removed_s=0,
        writer_lease_s=2,
        retries=1,
        timeout_s=10,
    )
    for number in range(3):
        one = Installation(tmp_path / str(number), Files())
        one.folder.mkdir()
        one.use_opensearch(options)
        one.start_api()
        made.append(one)
    here = build(made[0].settings)
    use_fake_encoder(here)
    ensure_collection(here, CollectionSpec("default"))
    urls = [f"http://127.0.0.1:{one.port}" for one in made]
    acknowledged: list[dict[str, str]] = [{}, {}, {}]
    perhaps: dict[str, set[str]] = {}
    wrong: list[str] = []
    ended = threading.Event()

    def write_and_look(mine: int) -> None:
        draw = random.Random(mine)
        with httpx.Client(timeout=30) as client:
            for number in itertools.count():
                if ended.is_set():
                    return
                one, text = f"s{mine}-{draw.randint(0, 20)}", f"unique{mine}x{number} beta"
                perhaps.setdefault(one, set()).add(text)
                try:
                    answer = client.post(
                        f"{urls[mine]}/v1/documents:bulk", json={"documents": [{"id": one, "text": text}]}
                    )
                    if answer.status_code != 200 or answer.json()["errors"]:
                        assert answer.status_code in {200, 409, 503}, answer.text
                        continue
                    acknowledged[mine][one] = text
                    perhaps[one] = {text}
                    other = draw.choice(urls)
                    answer = client.post(f"{other}/v1/search", json={"query": f"unique{mine}x{number}", "k": 3})
                except httpx.HTTPError:
                    time.sleep(0.1)
                    continue
                if answer.status_code == 200 and [hit["doc_id"] for hit in answer.json()["hits"][:1]] != [one]:
                    wrong.append(f"{one} was acknowledged by {mine} and is not found by {other}: {answer.text[:300]}")

    threads = [threading.Thread(target=write_and_look, args=(number,)) for number in range(3)]
    try:
        for thread in threads:
            thread.start()
        for _ in range(30 if SOAK else 2):
            time.sleep(6)
            made[2].kill("api")
            made[2].start_api()
        time.sleep(10)
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    try:
        assert wrong == []
        expected = {key: text for own in acknowledged for key, text in own.items()}
        stored = {one.document.id: one.document.text for one in _reader(here, "default").export()}
        assert set(expected) <= set(stored) <= set(perhaps)
        strange = {key: text for key, text in stored.items() if text not in perhaps[key]}
        assert strange == {}, "neither the last acknowledged text nor one sent after it"
        assert all(len(own) > 3 for own in acknowledged), [len(own) for own in acknowledged]
        assert fsck(here, "default") == []
    finally:
        here.catalog.delete("default")
        here.close()
        for one in made:
            one.close()
