"""What breaks in real life: killed processes, damaged files, full disks, two writers."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support import processes
from support.documents import random_documents
from support.services import SOAK

from hyblink.app.application import App
from hyblink.app.core.errors import CorruptionError, StorageFullError, WriterConflictError
from hyblink.app.core.types.collections import CollectionSpec
from hyblink.app.core.types.search import SearchRequest
from hyblink.app.engines.embedded.store import schema
from hyblink.app.operations.collections import ensure_collection
from hyblink.app.operations.encoding import encode_now
from hyblink.indexer.ingest.chunking import windows

WORKER = Path(__file__).with_name("ingest_worker.py")
KILLS = 50 if SOAK else 5


def start_worker(data: Path, rows: Path, acknowledged: Path, version: int) -> processes.Process:
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{root}:{root / 'tests'}", "HYBLINK_DATA_DIR": str(data)}
    return processes.start(
        [sys.executable, str(WORKER), str(rows), str(acknowledged), str(version)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def whole_documents_only(app: App) -> int:
    """Every document that is found has exactly the passages of its text, and shows no other's; how many were."""
    result = app.search.search("c", SearchRequest("alpha beta gamma", k=50, passages_per_document=20))
    reader = app.catalog.engine("c").snapshot().reader
    for hit in result.hits:
        document = reader.get_document(hit.doc_id)
        assert document is not None, hit.doc_id
        passages = reader.passages(reader.document_rows(hit.doc_id)).values()
        assert {(p.start, p.end) for p in passages} == set(windows(document.text, 100, 10)), hit.doc_id
        versions = {passage.text.rpartition("version")[2] for passage in hit.passages if "version" in passage.text}
        assert len(versions) <= 1, hit.doc_id
    return len(result.hits)


def test_kill_at_random_moments_of_an_ingestion(make_app: Callable[..., App], tmp_path: Path) -> None:
    """Killed again and again while another process searches: nothing acknowledged is lost, nothing is half-visible.

    A run that finishes before it is killed is followed by one with a new version of every document.
    """
    documents = random_documents(3000 if SOAK else 1200, seed=3)
    acknowledged = tmp_path / "acknowledged.txt"
    app = make_app()
    ensure_collection(app, CollectionSpec("c", chunk_chars=100, chunk_overlap_chars=10))
    rng = random.Random(0)
    stop = threading.Event()
    failures: list[str] = []
    found = 0

    def search_all_the_time() -> None:
        nonlocal found
        while not stop.is_set():
            try:
                found += whole_documents_only(app)
            except Exception as error:
                failures.append(repr(error))
            time.sleep(0.05)

    def rows_of(version: int) -> Path:
        path = tmp_path / f"rows{version}.jsonl"
        with path.open("w") as out:
            for one in documents:
                text = f"{one['text']} {'omega ' * (version * 7 % 40)}version{version}"
                out.write(json.dumps({**one, "text": text, "metadata": {"version": version}}) + "\n")
        return path

    searcher = threading.Thread(target=search_all_the_time)
    searcher.start()
    killed, version = 0, 1
    rows = rows_of(version)
    try:
        while True:
            worker = start_worker(tmp_path / "data", rows, acknowledged, version)
            try:
                _, errors = worker.communicate(timeout=0.2 + rng.random() * 2 if killed < KILLS else 300)
            except subprocess.TimeoutExpired:
                worker.send_signal(signal.SIGKILL)
                worker.communicate()
                killed += 1
                continue
            assert worker.returncode == 0, errors[-2000:]
            if killed == KILLS:
                break
            version += 1
            rows = rows_of(version)
    finally:
        stop.set()
        searcher.join()
    print(f"killed {killed} times in {version} versions of {len(documents)} documents; {found} hits looked at")
    assert failures == []
    assert found > 0
    engine = app.catalog.engine("c")
    reader = engine.store.reader()
    promised: dict[str, int] = {}
    for line in acknowledged.read_text().splitlines():
        doc_id, number = line.split()
        promised[doc_id] = max(int(number), promised.get(doc_id, 0))
    # A kill can fall between a batch's commit and its acknowledgement: stored, but promised to nobody. The last process
    # ended well, so whatever was committed before it, and it therefore passed over, is of its version too.
    assert len(promised) >= len(documents) - 10 * killed
    assert max(promised.values()) == version
    for doc_id in promised:
        document = reader.get_document(doc_id)
        assert document is not None, f"acknowledged, then lost: {doc_id}"
        assert document.metadata["version"] == version
    assert reader.counts().documents == len(documents)
    assert engine.check() == []


def filled(make_app: Callable[..., App], folder: str = "data") -> App:
    app = make_app(folder)
    ensure_collection(app, CollectionSpec("c", dense_index="hnsw"))
    app.documents.bulk("c", random_documents(200, seed=5), encode=False)
    encode_now(app, "c")
    app.catalog.engine("c").compact()
    app.catalog.engine("c").snapshot()
    return app


def answers(app: App) -> list[tuple[str, float]]:
    return [
        (hit.doc_id, round(hit.score, 6)) for hit in app.search.search("c", SearchRequest("alpha gamma", k=20)).hits
    ]


def damage_truncate(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def damage_flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[0] ^= 0x10  # small tantivy files are mostly footer, which its checksum does not cover
    path.write_bytes(data)


def derived_files(app: App) -> list[Path]:
    folder = app.catalog.engine("c").folder
    found = [p for name in ("bm25", "sparse", "dense") for p in sorted((folder / name).rglob("*")) if p.is_file()]
    return [p for p in found if not p.name.startswith(".") and not p.name.endswith(".lock")]


@pytest.mark.parametrize("damage", [damage_truncate, damage_flip, Path.unlink])
def test_a_damaged_file_of_any_index_is_detected_and_derived_again(
    make_app: Callable[..., App], damage: Callable[[Path], None]
) -> None:
    app = filled(make_app)
    before = answers(app)
    kinds = sorted({kind_of(path) for path in derived_files(app)})
    assert {index for index, _ in kinds} == {"bm25", "sparse", "dense"}
    detected = []
    for kind in kinds:
        path = next(path for path in derived_files(app) if kind_of(path) == kind)
        app.catalog.close()
        damage(path)
        if app.catalog.engine("c").check():
            detected.append(kind)
        app.catalog.close()
        if path.exists():
            damage(path)
        assert answers(app) == before, f"wrong answers after damage to {kind}"
        assert app.catalog.engine("c").check() == []
        app.catalog.engine("c").compact()
        app.catalog.engine("c").snapshot()
    # State and lock files of ours and of tantivy hold nothing that a search reads: losing them is healed in silence.
    silent = {
        ("bm25", "applied.json"),
        ("bm25", ".json"),
        ("bm25", "meta.json"),
        ("dense", "manifest.json"),
        ("sparse", "manifest.json"),
    }
    assert set(kinds) - set(detected) <= silent


def kind_of(path: Path) -> tuple[str, str]:
    """The index, and the file's name (of a tantivy segment only its ending)."""
    index = next(part for part in path.parts if part in {"bm25", "sparse", "dense"})
    return index, path.name if index != "bm25" or path.suffix == ".json" else path.suffix


def test_fsck_repairs(make_app: Callable[..., App]) -> None:
    app = filled(make_app)
    folder = app.catalog.engine("c").folder
    app.catalog.close()
    damage_flip(next(folder.glob("sparse/base-*/docs.npy")))
    damage_flip(next(folder.glob("dense/base-*/index.faiss")))
    damage_flip(next(folder.glob("bm25/*.term")))
    engine = app.catalog.engine("c")
    found = engine.check(repair=True)
    assert {problem.split("/")[0].split(":")[0] for problem in found} == {"sparse", "dense", "bm25"}
    assert engine.check() == []


def test_a_damaged_store_is_reported_not_served(make_app: Callable[..., App]) -> None:
    app = filled(make_app)
    path = app.catalog.engine("c").store.path
    app.catalog.close()
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    path.write_bytes(b"not a database" * 1000)
    with pytest.raises(CorruptionError, match="damaged"):
        app.search.search("c", SearchRequest("alpha"))


def test_a_full_disk_leaves_the_old_state(make_app: Callable[..., App]) -> None:
    app = filled(make_app)
    engine = app.catalog.engine("c")
    before, counts = answers(app), engine.store.reader().counts()
    pages = engine.store._connection.execute("PRAGMA page_count").fetchone()[0]
    engine.store._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StorageFullError, match="old state stands"):
        app.documents.bulk("c", [{"id": f"new{n}", "text": "alpha " * 5000} for n in range(50)])
    assert engine.store.reader().counts() == counts
    assert answers(app) == before
    assert engine.check() == []
    engine.store._connection.execute("PRAGMA max_page_count = 1073741823")
    assert not app.documents.bulk("c", [{"id": "new", "text": "alpha"}], encode=False).errors


def test_a_disk_that_fills_up_while_an_index_is_published(
    make_app: Callable[..., App], monkeypatch: pytest.MonkeyPatch
) -> None:
    import numpy as np

    app = filled(make_app)
    before = answers(app)
    engine = app.catalog.engine("c")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(StorageFullError, match="nothing stored is lost"):
        engine.compact()
    monkeypatch.undo()
    assert answers(app) == before
    assert engine.check() == []
    assert not list(engine.folder.rglob(".building*"))


def test_the_second_writer_gets_a_clear_error(make_app: Callable[..., App]) -> None:
    first = filled(make_app)
    from hyblink.app.core.settings import IngestSettings

    second = make_app("data", ingest=IngestSettings(writer_wait_s=0.2))
    with first.catalog.engine("c").store.writer():
        with pytest.raises(WriterConflictError, match=f"received 'writer with process id {os.getpid()}'"):
            second.documents.bulk("c", [{"id": "x", "text": "y"}])
        assert answers(second) == answers(first), "readers are not held up"
    assert not second.documents.bulk("c", [{"id": "x", "text": "y"}], encode=False).errors
    assert first.documents.get("c", "x").text == "y", "the first process sees it at once"


def test_two_processes_share_the_indexes(make_app: Callable[..., App]) -> None:
    """Writes by either are seen by the other's next search, through every leg."""
    one, two = filled(make_app), make_app("data")
    for number in range(6):
        writer, reader = (one, two) if number % 2 else (two, one)
        writer.documents.bulk("c", [{"id": f"n{number}", "text": f"zebra{number} omega"}], encode=False)
        encode_now(writer, "c")
        hits = reader.search.search("c", SearchRequest(f"zebra{number}", k=3)).hits
        assert hits[0].doc_id == f"n{number}"
        assert all(line.raw is not None for line in hits[0].passages[0].signals)
    assert one.catalog.engine("c").check() == two.catalog.engine("c").check() == []


def test_migration_keeps_documents_and_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    connection = sqlite3.connect(path, isolation_level=None)
    schema.migrate(connection, schema.MIGRATIONS[:1])
    assert schema.version(connection) == 1
    connection.execute("INSERT INTO documents VALUES (1, 'a', 't', 'x', '', '{}', 'h')")
    connection.close()
    from hyblink.app.engines.embedded.store.store import SqliteStore

    store = SqliteStore(path)
    assert store.reader().get_document("a") is not None
    assert store.progress("nothing") is None
    store.close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.commit()
    connection.close()
    with pytest.raises(CorruptionError, match="newer hyblink; received 'schema version 99'"):
        SqliteStore(path)


def test_a_failed_migration_changes_nothing(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "store.sqlite", isolation_level=None)
    schema.migrate(connection, schema.MIGRATIONS[:1])
    with pytest.raises(sqlite3.Error):
        schema.migrate(connection, (*schema.MIGRATIONS, "CREATE TABLE more (x); CREATE TABLE meta (y)"))
    assert schema.version(connection) == 1
    assert not connection.execute("SELECT 1 FROM sqlite_master WHERE name IN ('progress', 'more')").fetchall()


def test_indexes_left_behind_by_forgotten_tombstones_are_derived_again(make_app: Callable[..., App]) -> None:
    app, late = filled(make_app), make_app("data")
    assert answers(late) == answers(app)
    app.documents.delete("c", ["doc0", "doc1"])
    app.catalog.engine("c").store.forget_tombstones(app.catalog.engine("c").store.change())
    assert not {"doc0", "doc1"} & {doc for doc, _ in answers(late)}
    assert late.catalog.engine("c").check() == []
