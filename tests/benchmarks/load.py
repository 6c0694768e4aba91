"""How many searches a second one service answers, with and without ingestion beside it, and what happens beyond.

Requests come at a steady rate whether or not the last one was answered (an open loop), as those of many people do.
The clients are processes of their own on the same machine and take their share of its cores.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROOT = Path(__file__).resolve().parents[2]
_QUESTIONS = _ROOT / "tests" / "demo_questions" / "queries.jsonl"
_RATES = (4, 6, 8, 10, 12, 14, 16, 20, 24, 28, 32)
_SECONDS = 20
_BOUND_S = 1.0
_OVERLOAD = 4
_MINUTES = float(os.environ.get("HYBLINK_LOAD_MINUTES", "10"))


@contextmanager
def _served(work: Path) -> Iterator[tuple[int, psutil.Process]]:
    """A service over the documentation of this Python, in a process of its own."""
    from hyblink.app.bootstrap import build
    from hyblink.app.core.settings import Settings
    from hyblink.app.operations.ingestion import ingest_source
    from hyblink.indexer.readers.python_package import PythonSource

    folder = work / "load"
    app = build(Settings(data_dir=folder))
    ingest_source(app, PythonSource("python"), "python")
    app.close()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HYBLINK_")}
    environment |= {"HYBLINK_DATA_DIR": str(folder), "PYTHONPATH": str(_ROOT), "HYBLINK_LOG_LEVEL": "ERROR"}
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    process = subprocess.Popen(
        [sys.executable, "-m", "hyblink.app.cli.main", "serve", "--no-restart", "--port", str(port)],
        env=environment,
        cwd=folder,
    )
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                if _get(port, "/readyz") == 200:
                    break
            except OSError:
                pass
            time.sleep(0.5)
        else:
            sys.exit("the service did not get ready")
        yield port, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(30)


def _get(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path)
    return connection.getresponse().status


class _Client:
    """Sends at a steady rate from a pool of connections; latencies count from the moment a request was due."""

    def __init__(self, port: int, queries: list[str]) -> None:
        self._port = port
        self._queries = queries
        self._local = threading.local()

    def _one(self, due: float, query: str) -> tuple[int, float, str]:
        body = json.dumps({"collection": "python", "query": query, "k": 10}).encode()
        for _ in range(2):
            connection = getattr(self._local, "connection", None)
            if connection is None:
                connection = self._local.connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
            try:
                connection.request("POST", "/v1/search", body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                answer.read()
                return answer.status, time.monotonic() - due, answer.getheader("Retry-After") or ""
            except (OSError, http.client.HTTPException):
                self._local.connection = None
        return 0, time.monotonic() - due, ""

    def run(self, rate: float, seconds: float) -> list[tuple[int, float, str]]:
        rng = random.Random(0)
        with ThreadPoolExecutor(128) as pool:
            begun = time.monotonic()
            waiting = []
            for number in range(int(rate * seconds)):
                due = begun + number / rate
                time.sleep(max(0.0, due - time.monotonic()))
                waiting.append(pool.submit(self._one, due, rng.choice(self._queries)))
            return [one.result() for one in waiting]


def _highest(client: _Client, name: str) -> float:
    """The highest rate at which 99 of 100 requests are answered in time; each tried rate in a line."""
    best = 0.0
    for rate in _RATES:
        answers = client.run(rate, _SECONDS)
        statuses = Counter(status for status, _, _ in answers)
        latencies = np.array([seconds for status, seconds, _ in answers if status == 200] or [np.inf])
        p50, p99 = (float(np.quantile(latencies, q)) for q in (0.5, 0.99))
        print(
            f"{name}: {rate:>3} a second: p50 {p50 * 1000:6.0f} ms, p99 {p99 * 1000:6.0f} ms, {dict(statuses)}",
            flush=True,
        )
        if statuses[200] != len(answers) or p99 >= _BOUND_S:
            break
        best = rate
    return best


@contextmanager
def _ingesting(port: int) -> Iterator[list[int]]:
    """Documents of another collection are sent, and encoded by the service's worker, until the end."""
    ended = threading.Event()
    sent = [0]

    def send() -> None:
        rng = random.Random(1)
        words = [json.loads(line)["text"] for line in _QUESTIONS.read_text().splitlines()]
        number = 0
        while not ended.is_set():
            documents = [
                {"id": f"n{number + at}", "text": " ".join(rng.choice(words) for _ in range(8))} for at in range(50)
            ]
            number += 50
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            body = json.dumps({"documents": documents})
            connection.request("POST", "/v1/documents:bulk?collection=news", body, {"Content-Type": "application/json"})
            sent[0] += 50 if connection.getresponse().status == 200 else 0
            ended.wait(2.0)

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/v1/collections", json.dumps({"name": "news"}), {"Content-Type": "application/json"})
    connection.getresponse()
    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    try:
        yield sent
    finally:
        ended.set()
        thread.join()


def _overload(client: _Client, server: psutil.Process, rate: float) -> None:
    """Much more than can be answered, for minutes: what is refused says when to come back, and memory stays."""
    memory: list[float] = []
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(5):
            memory.append(server.memory_info().rss / 2**20)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    statuses: Counter[int] = Counter()
    told = 0
    served: list[float] = []
    begun = time.monotonic()
    while time.monotonic() - begun < _MINUTES * 60:
        for status, seconds, again in client.run(rate, 15):
            statuses[status] += 1
            told += status == 429 and bool(again)
            served += [seconds] if status == 200 else []
    ended.set()
    watcher.join()
    minutes = (time.monotonic() - begun) / 60
    quarter = max(1, len(memory) // 4)
    print(
        f"overload: {rate:.0f} a second for {minutes:.1f} min: {dict(statuses)}, {told} of {statuses[429]} refusals say "
        f"Retry-After; answered p99 {np.quantile(served, 0.99) * 1000:.0f} ms; memory of the service "
        f"{np.mean(memory[:quarter]):.0f} MiB in the first quarter, {np.mean(memory[-quarter:]):.0f} MiB in the last, "
        f"{max(memory):.0f} MiB at most"
    )


def run(data: Path | None, work: Path, passages: int) -> None:
    """Print rates, latencies and memory."""
    queries: list[Any] = [json.loads(line)["text"] for line in _QUESTIONS.read_text(encoding="utf-8").splitlines()]
    with _served(work) as (port, server):
        client = _Client(port, queries)
        client.run(2, 5)
        alone = _highest(client, "searches alone")
        with _ingesting(port) as sent:
            beside = _highest(client, "with ingestion")
            documents = sent[0]
        print(f"\n{alone:g} searches a second at p99 < 1 s; {beside:g} while {documents} documents are ingested beside")
        _overload(client, server, max(8.0, _OVERLOAD * alone))
