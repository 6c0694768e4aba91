"""Searches go on while workers die and generations are switched."""

from __future__ import annotations

import random
import threading
import time

import httpx
from support.services import SOAK
from support.workers import PATIENCE_S, Installation, all_encoded, rows, until, write

from hyblink.app.application import App
from hyblink.app.operations.encoding import encode_now
from hyblink.app.operations.generations import rebuild
from hyblink.app.operations.jobs import start_ingestion

DEATHS = 20 if SOAK else 3


def test_searches_go_on_while_workers_die_and_generations_are_switched(installation: Installation, here: App) -> None:
    """No search fails, and none answers from two generations, while a job reads and what encodes it is killed."""
    here.documents.bulk("default", rows(300, 8, "old"), encode=False)
    encode_now(here, "default")
    rebuild(here, "default")
    assert here.catalog.current("default") == "g000002"
    path = write(installation.folder / "rows.jsonl", rows(20_000 if SOAK else 1500, 5))
    installation.slow_s = 0.005
    installation.start_api()
    url = f"http://127.0.0.1:{installation.port}"
    until(lambda: _ready(url), 60, installation)
    installation.start_worker("w1")
    ended = threading.Event()
    failed: list[str] = []
    generations: list[str] = []

    def search(number: int) -> None:
        draw = random.Random(number)
        with httpx.Client(base_url=url, timeout=30) as client:
            while not ended.is_set():
                query = f"word{draw.randint(0, 299)} word{draw.randint(0, 299)}"
                answer = client.post("/v1/search", json={"query": query, "k": 10, "explain": True})
                found = answer.json()
                if answer.status_code != 200 or any(leg["error"] for leg in found["legs"]) or not found["hits"]:
                    failed.append(answer.text[:500])
                    continue
                generations.append(found["generation"])

    searchers = [threading.Thread(target=search, args=(number,)) for number in range(2)]
    for thread in searchers:
        thread.start()
    job = start_ingestion(here, "default", {"folder": str(path)})
    draw = random.Random(3)
    switched = 0
    try:
        for _ in range(DEATHS):
            time.sleep(draw.uniform(1.0, 3.0))
            installation.kill("w1")
            installation.start_worker("w1")
            wanted = "g000001" if here.catalog.current("default") == "g000002" else "g000002"
            answer = httpx.post(f"{url}/v1/admin/generations/{wanted}/publish", timeout=60)
            assert answer.status_code in {200, 409}, answer.text
            switched += answer.status_code == 200
        until(lambda: here.job_records.get(job.id).state == "done" and all_encoded(here), PATIENCE_S, installation)
    finally:
        ended.set()
        for thread in searchers:
            thread.join()
    assert failed == []
    assert len(generations) > 10 * DEATHS
    assert switched > 0
    assert set(generations) == {"g000001", "g000002"}
    engine = here.catalog.engine("default")
    assert engine.store.reader().counts().documents == 300 + (20_000 if SOAK else 1500), (
        "no write was lost by switching"
    )
    assert engine.check() == []


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False
