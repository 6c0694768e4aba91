"""Writers of a cluster: killed, frozen, and their leases."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import processes

from hyblink.app.core.errors import WriterConflictError
from hyblink.app.core.types.collections import CollectionSpec
from hyblink.app.core.types.search import SearchRequest
from hyblink.app.engines.opensearch.local.cluster import Cluster
from hyblink.app.operations.collections import ensure_collection
from tests.support.opensearch_faults import (
    KILLS,
    NUMBERS,
    AppMaker,
    documents,
    look,
    make_cluster_app,  # noqa: F401 - a fixture
    one_node,
)

pytestmark = pytest.mark.services


def worker(tmp_path: Path, url: str, prefix: str, rows: Path, version: int) -> processes.Process:
    environment = {
        **os.environ,
        "HYBLINK_ENGINE": "opensearch",
        "HYBLINK_DATA_DIR": str(tmp_path / f"worker{next(NUMBERS)}"),
        "HYBLINK_OPENSEARCH__HOSTS": json.dumps([url]),
        "HYBLINK_OPENSEARCH__PREFIX": prefix,
        "HYBLINK_OPENSEARCH__WRITER_LEASE_S": "2",
        "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
    }
    command = [sys.executable, str(Path(__file__).with_name("ingest_worker.py"))]
    arguments = [str(rows), str(tmp_path / "acknowledged.txt"), str(version)]
    return processes.start([*command, *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def write_rows(path: Path, count: int, version: int) -> Path:
    with path.open("w") as out:
        for n in range(count):
            text = f"alpha number{n} version{version} " + "beta " * ((n + version) % 50)
            out.write(json.dumps({"id": f"d{n}", "text": text, "metadata": {"version": version}}) + "\n")
    return path


def test_a_writer_killed_at_random_moments(
    local_cluster: Callable[..., Cluster], make_cluster_app: AppMaker, tmp_path: Path
) -> None:
    """Ingestion by processes that are killed again and again; each goes on after what was acknowledged."""
    url, prefix = one_node(local_cluster), f"kill{os.getpid()}"
    app = make_cluster_app((url,), prefix)
    ensure_collection(app, CollectionSpec("c", chunk_chars=60, chunk_overlap_chars=10))
    count, rng = 600, random.Random(4)
    killed, version = 0, 1
    rows = write_rows(tmp_path / "rows1.jsonl", count, version)
    while True:
        process = worker(tmp_path, url, prefix, rows, version)
        try:
            _, errors = process.communicate(timeout=0.5 + rng.random() * 4 if killed < 2 * KILLS else 300)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            killed += 1
            app.search.search("c", SearchRequest("alpha", k=50))
            continue
        assert process.returncode == 0, errors[-2000:]
        if killed >= 2 * KILLS:
            break
        version += 1
        rows = write_rows(tmp_path / f"rows{version}.jsonl", count, version)
    print(f"killed {killed} times in {version} versions of {count} documents")
    promised: dict[str, int] = {}
    for line in (tmp_path / "acknowledged.txt").read_text().splitlines():
        doc_id, number = line.split()
        promised[doc_id] = max(int(number), promised.get(doc_id, 0))
    reader = app.catalog.engine("c").store.reader()
    stored = {one.document.id: one.document for one in reader.export()}
    assert len(stored) == count
    # A kill can fall between a batch's commit and its acknowledgement: stored, but promised to nobody. The last process
    # ended well, so whatever was committed before it, and it therefore passed over, is of its version too.
    assert len(promised) >= count - 10 * killed
    assert max(promised.values()) == version
    assert {one.metadata["version"] for one in stored.values()} == {version}
    assert app.catalog.engine("c").check() == []


def test_a_writer_that_was_frozen_cannot_write_after_its_lease(
    local_cluster: Callable[..., Cluster], make_cluster_app: AppMaker, tmp_path: Path
) -> None:
    url, prefix = one_node(local_cluster), f"zombie{os.getpid()}"
    app = make_cluster_app((url,), prefix)
    ensure_collection(app, CollectionSpec("c", chunk_chars=60, chunk_overlap_chars=10))
    rows = write_rows(tmp_path / "rows.jsonl", 3000, 1)
    process = worker(tmp_path, url, prefix, rows, 1)
    deadline = time.monotonic() + 60
    while not (tmp_path / "acknowledged.txt").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGSTOP)
    try:
        app.documents.bulk("c", [{"id": "mine", "text": "written after the other one's lease"}], encode=False)
    finally:
        process.send_signal(signal.SIGCONT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "WriterConflictError" in errors
    document = app.catalog.engine("c").store.reader().get_document("mine")
    assert document is not None
    acknowledged = (tmp_path / "acknowledged.txt").read_text().splitlines()
    reader = app.catalog.engine("c").store.reader()
    stored = {one.document.id for one in reader.export()}
    assert {line.split()[0] for line in acknowledged} <= stored
    assert app.catalog.engine("c").check() == []


def test_a_lease_is_taken_from_the_dead_at_once_and_from_the_silent_in_time(
    local_cluster: Callable[..., Cluster], make_cluster_app: AppMaker
) -> None:
    app = make_cluster_app((one_node(local_cluster),), "lease", writer_lease_s=1)
    ensure_collection(app, CollectionSpec("c"))
    store: Any = app.catalog.engine("c").store
    app.documents.bulk("c", documents(0), encode=False)

    def leave(owner: str, until: float) -> None:
        found = store._documents.get(store._path)
        store._documents.put(store._path, {**found.value, "owner": owner, "until": until, "clean": False}, after=found)

    host, pid, started, number = store._lease._owner.split(" ")
    term = store.state()["term"]
    leave(f"{host} {pid} {float(started) - 9:.2f} {number}", time.time() + 1000)
    app.documents.bulk("c", documents(1), encode=False)
    assert (look(app), store.state()["term"]) == (1, term + 1)
    leave("elsewhere/1 1 1.00 abcd", time.time() + 1.5)
    before = time.monotonic()
    app.documents.bulk("c", documents(2), encode=False)
    assert time.monotonic() - before > 1
    assert (look(app), store.state()["term"]) == (2, term + 2)
    leave("elsewhere/1 1 1.00 abcd", time.time() + 1000)
    impatient = make_cluster_app(store._cluster.settings.hosts, "lease")
    impatient_store: Any = impatient.catalog.engine("c").store
    impatient_store._lease._wait_s = 0.3
    with pytest.raises(WriterConflictError, match="elsewhere"):
        impatient.documents.bulk("c", documents(3), encode=False)
    leave("", 0)
