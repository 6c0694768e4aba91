"""64 clients at once, with ingestion and a retraining beside them: no fault, no growing memory, health answers at once."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import httpx
import numpy as np
import pytest
from support.dearest import Measured, Size, prepare, service

CLIENTS = 64
SECONDS = float(os.environ.get("HYBLINK_SOAK_SECONDS", "600"))
SIZE = Size(documents=400, long=2, long_chars=20_000, sharing=100, entities=200)


class Crowd:
    """Clients that send one request after another, and what they were answered."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.end = threading.Event()
        self.statuses: Counter[tuple[str, int]] = Counter()
        self.faults: list[str] = []
        self._lock = threading.Lock()

    def _note(self, kind: str, answer: httpx.Response) -> None:
        with self._lock:
            self.statuses[kind, answer.status_code] += 1
            if answer.status_code >= 500:
                self.faults.append(answer.text[:300])

    def search(self, seed: int) -> None:
        """Search and link until the end; pause as asked where there are too many."""
        rng = random.Random(seed)
        with httpx.Client(base_url=self.url, timeout=120) as client:
            while not self.end.is_set():
                words = " ".join(f"word{rng.randrange(500)}" for _ in range(3))
                if rng.random() < 0.8:
                    rerank = {"top": 5, "budget_ms": 200} if rng.random() < 0.2 else False
                    answer = client.post("/v1/search", json={"query": words, "rerank": rerank, "explain": True})
                    self._note("search", answer)
                else:
                    answer = client.post("/v1/link", json={"text": f"{words} Thing{rng.randrange(400)}"})
                    self._note("link", answer)
                if answer.status_code == 429:
                    self.end.wait(float(answer.headers["Retry-After"]))

    def ingest(self) -> None:
        """Write documents until the end: new ones, and others over old ones."""
        with httpx.Client(base_url=self.url, timeout=120) as client:
            for number in range(10**9):
                if self.end.is_set():
                    return
                rows = [{"id": f"n{number % 40}-{at}", "text": f"word{at} fresh{number}"} for at in range(20)]
                self._note("write", client.post("/v1/documents:bulk", json={"documents": rows}))
                self.end.wait(0.5)


WATCH = """
import http.client, sys, time, urllib.parse
address = urllib.parse.urlsplit(sys.argv[1])
while True:
    began = time.perf_counter()
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
    connection.request("GET", "/healthz")
    status = connection.getresponse().status
    print(status, time.perf_counter() - began, flush=True)
    connection.close()
    time.sleep(0.2)
"""
"""Asks for health again and again, in a process of its own: the crowd's threads would make it wait."""


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_a_crowd_is_answered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = prepare(tmp_path / "data", SIZE, encode=True)
    with service(folder, HYBLINK_JOBS__WORKERS="1") as measured:
        crowd = Crowd(str(measured.client.base_url))
        threads = [threading.Thread(target=crowd.search, args=(seed,)) for seed in range(CLIENTS)]
        threads += [threading.Thread(target=crowd.ingest)]
        watching = subprocess.Popen([sys.executable, "-c", WATCH, crowd.url], stdout=subprocess.PIPE, text=True)
        for thread in threads:
            thread.start()
        trained = measured.client.post(
            "/v1/admin/retrain", json={"collection": "default", "rows": 200, "options": {"steps": "20"}}
        )
        memory = _memory(measured, crowd)
        for thread in threads:
            thread.join()
        watching.kill()
        told, _ = watching.communicate()
    health = [line.split() for line in told.splitlines() if line.count(" ") == 1]
    assert {status for status, _ in health} == {"200"}
    p99 = float(np.quantile([float(took) for _, took in health], 0.99))
    with capsys.disabled():
        print(f"\n{dict(crowd.statuses)}\nretraining {trained.status_code}; health p99 {p99 * 1e3:.0f} ms; MB {memory}")
    assert crowd.faults == []
    assert {status for _, status in crowd.statuses} <= {200, 429}
    assert crowd.statuses["search", 200] > SECONDS
    half = len(memory) // 2
    assert max(memory[half:]) < 1.25 * max(memory[: half + 1])


def _memory(measured: Measured, crowd: Crowd) -> list[int]:
    """The service's memory in MB, twenty times until the end; then the crowd goes."""
    found = []
    for _ in range(20):
        time.sleep(SECONDS / 20)
        found.append(measured.memory() // 1_000_000)
    crowd.end.set()
    return found
