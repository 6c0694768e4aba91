"""The dearest legal requests of a `search` key: data that makes them dear, a service to send them to, what they cost."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from hyblink.app.application import App
from hyblink.app.bootstrap import build
from hyblink.app.core.settings import JobsSettings, Settings
from hyblink.app.core.types.collections import CollectionSpec
from hyblink.app.linking.knowledge_base import entity_spec
from hyblink.app.operations.collections import ensure_collection

SHARED = "Alpha Centauri"
"""The alias that thousands of entities share."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much data the requests meet."""

    documents: int = 400
    long: int = 12
    long_chars: int = 100_000
    sharing: int = 1000
    entities: int = 1500


FULL = Size(documents=5000, long=40, long_chars=1_000_000, sharing=5000, entities=20_000)


def _words(rng: random.Random, count: int) -> str:
    return " ".join(f"word{int(rng.paretovariate(0.6)) % 20_000}" for _ in range(count))


def prepare(folder: Path, size: Size, *, encode: bool = False) -> Path:
    """A data folder with documents, long whole documents and a knowledge base. Vectors only with `encode`."""
    app = build(Settings(data_dir=folder, jobs=JobsSettings(broker="none")))  # type: ignore[arg-type]
    try:
        _fill(app, size, encode)
    finally:
        app.close()
    return folder


def _fill(app: App, size: Size, encode: bool) -> None:
    rng = random.Random(5)
    documents = [
        {"id": f"d{at}", "title": _words(rng, 3), "text": _words(rng, 120), "metadata": {"kind": f"k{at % 30}"}}
        for at in range(size.documents)
    ]
    ensure_collection(app, CollectionSpec("default"))
    for at in range(0, len(documents), 1000):
        app.documents.bulk("default", documents[at : at + 1000], encode=encode)
    ensure_collection(app, CollectionSpec("whole", chunk_chars=0, chunk_overlap_chars=0, dense_encoder="none"))
    for at in range(size.long):
        text = _words(rng, size.long_chars // 8)[: size.long_chars]
        app.documents.bulk("whole", [{"id": f"w{at}", "title": "long", "text": text}], encode=False)
    ensure_collection(app, entity_spec("entities"))
    entities: list[object] = [
        {"id": f"shared{at}", "title": f"Star {at}", "description": _words(rng, 30), "aliases": [SHARED]}
        for at in range(size.sharing)
    ]
    entities += [
        {"id": f"e{at}", "title": f"Thing{at}", "description": _words(rng, 30), "aliases": [f"Name{at % 500} Other"]}
        for at in range(size.entities)
    ]
    for at in range(0, len(entities), 1000):
        app.entities.bulk("entities", entities[at : at + 1000], encode=encode)
    assert app.jobs.wait(3600)


@dataclass(frozen=True, slots=True)
class Request:
    """A request, and whether it may use models or linking."""

    path: str
    body: dict[str, Any]
    dear: bool = False


def attacks(size: Size) -> dict[str, Request]:
    """The requests that were dearest where they were looked for, by a name that says what is dear about them."""
    rng = random.Random(6)
    many = " ".join(f"word{at}" for at in range(1000))
    bm25 = {"signals": ["bm25"]}
    text = " ".join([SHARED] * 460)
    spans = [{"start": at * 15, "end": at * 15 + len(SHARED)} for at in range(300)]
    return {
        "k 2,000 with explain": Request(
            "/v1/search", {"query": many, "k": 2000, "candidates": 2000, "explain": True, **bm25}
        ),
        "long documents with explain": Request(
            "/v1/search", {"collection": "whole", "query": _words(rng, 200), "k": 40, "explain": True, **bm25}
        ),
        "8 kB of underscores": Request("/v1/search", {"query": "_" * 8192, **bm25}),
        "8 kB of words": Request("/v1/search", {"query": many, "candidates": 2000, "k": 10}, dear=True),
        "20 facets, filter of 10,000 values": Request(
            "/v1/search",
            {
                **bm25, "query": many, "k": 2000, "candidates": 2000, "facets": [f"kind{at}" for at in range(20)],
                "filter": {"not": {"terms": {"kind": [f"v{at}" for at in range(10_000)]}}},
            },
        ),
        "re-rank 200 and explain": Request(
            "/v1/search",
            {
                "query": many, "k": 200, "explain": True, "rerank": {"top": 200, "budget_ms": 10_000},
            },
            dear=True,
        ),
        "why not": Request("/v1/explain", {"query": many, "document_id": "d1", "candidates": 2000}, dear=True),
        "an alias shared by thousands": Request(
            "/v1/link", {"texts": [{"text": text}]}, dear=True
        ),
        "300 mentions, 256 shown": Request(
            "/v1/link", {"texts": [{"text": text, "mentions": spans}], "shown": 256, "candidates": 256}, dear=True
        ),
        "10,000 mentions, 256 shown": Request(
            "/v1/link",
            {
                "texts": [{"text": text, "mentions": spans}] * 33, "shown": 256, "candidates": 256, "coherence": 1.0,
                "rerank": True, "budget_ms": 600_000,
            },
            dear=True,
        ),
        "1,000 texts with evidence": Request(
            "/v1/link",
            {
                "texts": [{"text": _words(rng, 100)} for _ in range(1000)],
                "evidence": {"collection": "default", "hits": 10, "weight": 1.0},
            },
            dear=True,
        ),
        "31 MB of names to find": Request(
            "/v1/link", {"texts": [{"text": f"Name{at} Other, " * 70_000} for at in range(31)]}, dear=True
        ),
        "31 MB for the span head": Request(
            "/v1/link", {"texts": [{"text": _words(rng, 100_000)[:900_000]}] * 30, "detectors": ["elq"]}, dear=True
        ),
        "vocabulary of 20,000 characters": Request(
            "/v1/vocabulary", {"text": _words(rng, 3000)[:20_000], "passage": _words(rng, 3000)[:20_000]}, dear=True
        ),
        "a query with entities, re-ranked": Request(
            "/v1/search",
            {
                "query": text[:8000], "k": 200, "explain": True,
                "entities": {"kb": "entities", "mode": "boost"},
                "rerank": {"top": 200, "budget_ms": 10_000},
            },
            dear=True,
        ),
    }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cost:
    """What a request cost the service: CPU seconds, memory above what it had before in bytes, and what it answered."""

    cpu_s: float
    memory: int
    wall_s: float
    status: int
    size: int
    left_out: tuple[str, ...]


class Measured:
    """A service in a process of its own, whose CPU time and memory are looked at from outside (Linux)."""

    def __init__(self, url: str, pid: int) -> None:
        self.client = httpx.Client(base_url=url, timeout=300)
        self._folder = Path(f"/proc/{pid}")

    def cpu_s(self) -> float:
        """CPU seconds that the process has used so far."""
        fields = (self._folder / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / 100

    def _memory(self, name: str) -> int:
        found = re.search(rf"{name}:\s+(\d+) kB", (self._folder / "status").read_text())
        assert found is not None
        return int(found.group(1)) * 1024

    def memory(self) -> int:
        """Resident bytes of the process."""
        return self._memory("VmRSS")

    def cost(self, request: Request) -> Cost:
        """Send a request and return what it cost."""
        body = json.dumps(request.body).encode()
        (self._folder / "clear_refs").write_text("5")  # the peak begins anew
        memory, cpu = self._memory("VmRSS"), self.cpu_s()
        started = time.perf_counter()
        answer = self.client.post(request.path, content=body, headers={"Content-Type": "application/json"})
        wall_s = time.perf_counter() - started
        report = answer.json().get("budget") or {} if answer.status_code == 200 else {}
        return Cost(
            self.cpu_s() - cpu, self._memory("VmHWM") - memory - len(body), wall_s, answer.status_code,
            len(answer.content), tuple(report.get("left_out", ())),
        )  # fmt: skip


@contextmanager
def service(data: Path, **environment: str) -> Iterator[Measured]:
    """A service on a data folder, warm: its models are loaded."""
    more = {
        "HYBLINK_DATA_DIR": str(data), "HYBLINK_API__PORT": "0", "HYBLINK_JOBS__WORKERS": "0",
        "HYBLINK_JOBS__BROKER": "filesystem",
    }  # fmt: skip
    command = [sys.executable, "-m", "hyblink.app.cli.main", "serve", "--no-restart"]
    with subprocess.Popen(
        command, env={**os.environ, **more, **environment}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        measured: Measured | None = None
        try:
            assert process.stdout is not None
            url = ""
            for line in process.stdout:
                found = re.search(r"http://127\.0\.0\.1:\d+", line)
                if found:
                    url = found.group(0)
                    break
            assert url, "the service did not start"
            threading.Thread(target=process.stdout.read, daemon=True).start()
            measured = Measured(url, process.pid)
            for _ in range(600):
                try:
                    if measured.client.get("/readyz").status_code == 200:
                        break
                except httpx.HTTPError:
                    pass
                time.sleep(0.2)
            for path, body in (
                ("/v1/search", {"query": "word1", "rerank": {"top": 3}, "explain": True}),
                ("/v1/search", {"query": "word1", "collection": "whole"}),
                ("/v1/link", {"texts": [{"text": "Thing1"}], "rerank": True}),
                ("/v1/link", {"texts": [{"text": "Thing1"}], "detectors": ["elq"]}),
            ):
                measured.client.post(path, json=body)
            yield measured
        finally:
            if measured is not None:
                measured.client.close()
            process.terminate()
            process.wait(30)
