"""`hyblink serve` starts again after a fault, and ends as it is told."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from hyblink.app.application import App
from hyblink.app.operations.encoding import encode_now


@pytest.fixture
def started(tmp_path: Path, app: App) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    app.documents.bulk("default", [{"id": "a", "text": "dogs bark"}], encode=False)
    encode_now(app, "default")
    app.catalog.engine("default").compact()
    app.close()
    environment = {
        **os.environ, "HYBLINK_DATA_DIR": str(tmp_path / "data"), "HYBLINK_API__PORT": "0", "HYBLINK_JOBS__WORKERS": "0",
    }  # fmt: skip
    log = tmp_path / "log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "hyblink.app.cli.main", "serve"], env=environment, stdout=out, stderr=out, text=True
        )
    yield process, log
    process.kill()
    process.wait()


def _addresses(log: Path, count: int) -> list[str]:
    for _ in range(300):
        found = re.findall(r"running on (http://127\.0\.0\.1:\d+)", log.read_text())
        if len(found) >= count:
            return found
        time.sleep(0.1)
    raise AssertionError(log.read_text())


def _answers(url: str) -> bool:
    return httpx.post(f"{url}/v1/search", json={"query": "dogs", "signals": ["bm25"]}, timeout=60).status_code == 200


def test_it_starts_again_after_a_fault_and_ends_when_told(started: tuple[subprocess.Popen[str], Path]) -> None:
    process, log = started
    assert _answers(_addresses(log, 1)[0])
    (child,) = psutil.Process(process.pid).children()
    child.send_signal(signal.SIGBUS)
    again = _addresses(log, 2)
    assert "ended by SIGBUS; starting again" in log.read_text()
    assert _answers(again[1])
    (second,) = psutil.Process(process.pid).children()
    assert second.pid != child.pid
    process.terminate()
    assert process.wait(30) == 0
    assert not second.is_running()


def test_the_service_ends_with_what_started_it(started: tuple[subprocess.Popen[str], Path]) -> None:
    process, log = started
    _addresses(log, 1)
    (child,) = psutil.Process(process.pid).children()
    process.kill()
    process.wait()
    child.wait(30)


def test_a_child_that_is_killed_is_not_started_again(started: tuple[subprocess.Popen[str], Path]) -> None:
    process, log = started
    _addresses(log, 1)
    (child,) = psutil.Process(process.pid).children()
    child.kill()
    assert process.wait(30) == 128 + signal.SIGKILL


def test_a_file_that_is_cut_short_while_it_is_mapped_costs_a_restart_and_no_answer(
    started: tuple[subprocess.Popen[str], Path], tmp_path: Path
) -> None:
    process, log = started
    (url,) = _addresses(log, 1)
    body = {"query": "dogs", "signals": ["vdr"], "vdr": "bag"}
    first = httpx.post(f"{url}/v1/search", json=body, timeout=60).json()["hits"]
    assert first
    (docs,) = (tmp_path / "data" / "collections" / "default").glob("generations/*/sparse/base-*/docs.npy")
    os.truncate(docs, 0)
    with pytest.raises(httpx.HTTPError):
        httpx.post(f"{url}/v1/search", json=body, timeout=60)
    again = _addresses(log, 2)[1]
    assert "ended by SIGBUS; starting again" in log.read_text()
    hits = httpx.post(f"{again}/v1/search", json=body, timeout=60).json()["hits"]
    assert [(hit["doc_id"], hit["score"]) for hit in hits] == [(hit["doc_id"], hit["score"]) for hit in first]
    assert process.poll() is None
