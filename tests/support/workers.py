"""An installation with a broker and worker processes, for tests that kill them."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from support import processes
from support.brokers import Files, Rabbit, Redis, broker, free_port, missing
from support.encoders import FakeDense, use_fake_encoder
from support.services import SOAK, missing_service

from hyblink.app.application import App
from hyblink.app.bootstrap import build
from hyblink.app.core.settings import IngestSettings, JobsSettings, OpenSearchSettings, Settings
from hyblink.app.core.types.collections import CollectionSpec
from hyblink.app.operations.collections import ensure_collection

_ROOT = Path(__file__).resolve().parents[2]


PATIENCE_S = 1800 if SOAK else 240


BROKERS = [
    pytest.param("filesystem"),
    pytest.param("redis", marks=pytest.mark.services),
    pytest.param("rabbitmq", marks=pytest.mark.services),
]


class Installation:
    """A data folder, a broker, and processes that work for it."""

    def __init__(self, folder: Path, served: Files | Redis | Rabbit) -> None:
        self.folder = folder
        self.broker = served
        self.port = free_port()
        jobs = JobsSettings(
            broker=served.url,  # type: ignore[arg-type]
            slice_s=3,
            claim_s=20,
            silent_s=6,
            sweep_s=2,
            retry_s=0.2,
            visibility_timeout_s=15,
            roots=(folder,),
        )
        ingest = IngestSettings(batch_documents=50, writer_wait_s=30)
        self.settings = Settings(data_dir=folder / "data", jobs=jobs, ingest=ingest)
        self._engine: dict[str, str] = {}
        self.slow_s = 0.0
        self.encoder = FakeDense.id
        self.processes: dict[str, processes.Process] = {}

    def use_opensearch(self, cluster: OpenSearchSettings) -> None:
        """Keep passages and records in a cluster instead of files."""
        self.settings = self.settings.model_copy(update={"engine": "opensearch", "opensearch": cluster})
        self._engine = {"HYBLINK_ENGINE": "opensearch"}
        for name, value in cluster.model_dump(exclude_unset=True).items():
            told = json.dumps(value) if isinstance(value, list | tuple) else str(value)
            self._engine[f"HYBLINK_OPENSEARCH__{name.upper()}"] = told

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HYBLINK_")}
        values = {f"HYBLINK_JOBS__{name.upper()}": value for name, value in self.settings.jobs.model_dump().items()}
        wanted = ("BROKER", "SLICE_S", "CLAIM_S", "SILENT_S", "SWEEP_S", "RETRY_S", "VISIBILITY_TIMEOUT_S")
        plain = {name: str(value) for name, value in values.items() if name.removeprefix("HYBLINK_JOBS__") in wanted}
        return {
            **kept,
            **plain,
            "HYBLINK_JOBS__BROKER": self.broker.url,
            "HYBLINK_JOBS__ROOTS": json.dumps([str(self.folder)]),
            "HYBLINK_INGEST__BATCH_DOCUMENTS": "50",
            "HYBLINK_INGEST__WRITER_WAIT_S": "30",
            "HYBLINK_DATA_DIR": str(self.folder / "data"),
            **self._engine,
            "SLOW_S": str(self.slow_s),
            "FAKE_ID": self.encoder,
            "PYTHONPATH": os.pathsep.join([str(_ROOT), str(_ROOT / "tests")]),
        }

    def start(self, name: str, *arguments: str) -> None:
        script = str(_ROOT / "tests" / "jobs" / "broker_process.py")
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = processes.start(
                [sys.executable, script, *arguments],
                env=self.environment(),
                cwd=self.folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def start_worker(self, name: str) -> None:
        self.start(name, "worker", "ingest,encode,train,maintenance", "beat")

    def start_api(self) -> None:
        self.start("api", "api", str(self.port))

    def kill(self, name: str) -> None:
        """`kill -9` of a process and all of its children. Fails where it has ended by itself."""
        process = self.processes.pop(name)
        status = process.poll()
        if status is None:
            with suppress(ProcessLookupError):  # so young that it leads no group yet
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            process.wait()
        assert status is None, f"{name} had ended by itself with {status}:\n{self.logs()}"

    def close(self) -> None:
        try:
            for name in list(self.processes):
                self.kill(name)
        finally:
            self.broker.stop()

    def logs(self) -> str:
        return "\n".join(f"== {path.name}\n{path.read_text()[-3000:]}" for path in self.folder.glob("*.log"))


@pytest.fixture(params=BROKERS)
def installation(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Installation]:
    if lacking := missing(request.param):
        missing_service(lacking)
    made = Installation(tmp_path, broker(request.param, tmp_path / "broker"))
    made.broker.start()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def here(installation: Installation) -> Iterator[App]:
    app = build(installation.settings)
    use_fake_encoder(app)
    ensure_collection(app, CollectionSpec("default"))
    yield app
    app.close()


def rows(count: int, seed: int, prefix: str = "r") -> list[dict[str, Any]]:
    draw = random.Random(seed)
    words = [f"word{n}" for n in range(300)]
    return [
        {"id": f"{prefix}{n}", "title": f"row {n}", "text": " ".join(draw.choices(words, k=draw.randint(3, 30)))}
        for n in range(count)
    ]


def write(path: Path, documents: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in documents))
    return path


def until(what: Callable[[], bool], patience_s: float, installation: Installation) -> None:
    deadline = time.monotonic() + patience_s
    while not what():
        if time.monotonic() > deadline:
            pytest.fail(f"it did not come to that in {patience_s} s\n{installation.logs()}")
        time.sleep(0.3)


def all_encoded(app: App) -> bool:
    counts = app.catalog.engine("default").store.reader().counts()
    return counts.passages == counts.encoded
