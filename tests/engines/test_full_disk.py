"""A file system that is really full: small, in memory, mounted for the test."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from support.documents import random_documents
from support.encoders import use_fake_encoder
from support.services import missing_service

from hyblink.app.api.application import create_api
from hyblink.app.application import App
from hyblink.app.bootstrap import build
from hyblink.app.core.errors import StorageFullError, UnavailableError
from hyblink.app.core.settings import Settings
from hyblink.app.core.types.collections import CollectionSpec
from hyblink.app.core.types.ranking import Signal
from hyblink.app.core.types.search import SearchRequest
from hyblink.app.operations.collections import ensure_collection, fsck
from hyblink.app.operations.encoding import encode_now
from hyblink.app.operations.generations import rebuild
from hyblink.app.operations.maintenance import sweep

pytestmark = pytest.mark.services


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """24 MB. Mounting needs root."""
    folder = tmp_path / "data"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if done.returncode:
        missing_service(f"the right to mount a file system ({done.stderr.decode().strip()})")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_everything_stored_before_the_disk_was_full_stays_and_is_found(
    small_disk: Path, make_app: Callable[..., App]
) -> None:
    app = make_app()
    ensure_collection(app, CollectionSpec("c"))
    app.documents.bulk("c", random_documents(100, seed=5), encode=False)
    encode_now(app, "c")
    engine = app.catalog.engine("c")
    engine.snapshot()
    (small_disk / "ballast").write_bytes(bytes(8 << 20))
    stored, failures = 100, 0
    for round_ in range(200):
        rows = [{"id": f"r{round_}n{n}", "text": f"alpha{round_} " + "filler beta gamma " * 200} for n in range(20)]
        try:
            result = app.documents.bulk("c", rows, encode=False)
        except StorageFullError:
            failures += 1
            if failures == 3:
                break
            continue
        assert not result.errors
        stored += len(rows)
    assert failures == 3
    assert engine.store.reader().counts().documents == stored
    # What is stored cannot be indexed any more: a search is told so, and never gets an answer without it.
    for _ in range(3):
        with pytest.raises(StorageFullError, match="nothing stored is lost"):
            app.search.search("c", SearchRequest("alpha0"))
    (small_disk / "ballast").unlink()
    found = app.search.search("c", SearchRequest("alpha0", k=50, signals=(Signal.BM25,)))
    assert len(found.hits) == 20
    assert engine.check() == []
    assert not app.documents.bulk("c", [{"id": "after", "text": "alpha0 again"}], encode=False).errors
    assert len(app.search.search("c", SearchRequest("alpha0", k=50)).hits) >= 21


@pytest.mark.parametrize("left", [100_000, 500_000, 1_200_000])
def test_a_generation_that_finds_the_disk_full_leaves_the_one_that_serves(
    small_disk: Path, make_app: Callable[..., App], left: int
) -> None:
    """The disk fills while a rebuild copies, encodes or indexes; afterwards the same rebuild succeeds."""
    app = make_app()
    ensure_collection(app, CollectionSpec("c"))
    app.documents.bulk("c", [{"id": f"d{n}", "text": f"alpha{n} " + "beta " * 300} for n in range(600)], encode=False)
    encode_now(app, "c")
    before = app.search.search("c", SearchRequest("alpha7 beta", k=20))
    ballast = small_disk / "ballast"
    free = os.statvfs(small_disk)
    ballast.write_bytes(bytes(free.f_bavail * free.f_frsize - left))
    with pytest.raises(StorageFullError, match="disk is full"):
        rebuild(app, "c")
    assert app.catalog.current("c") == "g000001"
    during = app.search.search("c", SearchRequest("alpha7 beta", k=20))
    assert [(hit.doc_id, hit.score) for hit in during.hits] == [(hit.doc_id, hit.score) for hit in before.hits]
    ballast.unlink()
    sweep(app)
    rebuild(app, "c")
    assert app.catalog.current("c") != "g000001"
    after = app.search.search("c", SearchRequest("alpha7 beta", k=20))
    assert [(hit.doc_id, hit.score) for hit in after.hits] == [(hit.doc_id, hit.score) for hit in before.hits]
    assert fsck(app, "c") == []
    folders = {path.name for path in (small_disk / "collections" / "c").rglob("g0*") if path.is_dir()}
    assert folders == {one.id for one in app.catalog.generations("c")}, "nothing half-built takes up the disk"


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Callable[[Path], Path]]:
    """A function that gives another name for a folder, under which it cannot be written. Mounting needs root."""
    mounted: list[Path] = []

    def mount(folder: Path) -> Path:
        at = tmp_path / f"read-only-{len(mounted)}"
        at.mkdir()
        done = subprocess.run(["mount", "--bind", "-o", "ro", str(folder), str(at)], capture_output=True, check=False)
        if done.returncode:
            missing_service(f"the right to mount a file system ({done.stderr.decode().strip()})")
        mounted.append(at)
        return at

    yield mount
    for at in mounted:
        subprocess.run(["umount", "--lazy", str(at)], check=True)


def test_a_read_only_data_folder_searches(
    read_only: Callable[[Path], Path], make_app: Callable[..., App], tmp_path: Path
) -> None:
    app = make_app()
    ensure_collection(app, CollectionSpec("c"))
    app.documents.bulk("c", random_documents(100, seed=5), encode=False)
    encode_now(app, "c")
    request = SearchRequest("red fox", k=20)
    engine = app.catalog.engine("c")
    engine.compact()
    app.documents.bulk("c", random_documents(30, seed=9), encode=False)  # what indexes have not seen yet
    right = [(hit.doc_id, round(hit.score, 5)) for hit in app.search.search("c", request).hits]
    app.close()
    at = read_only(tmp_path / "data")
    app = build(Settings(data_dir=at))
    use_fake_encoder(app)
    assert [(hit.doc_id, round(hit.score, 5)) for hit in app.search.search("c", request).hits] == right
    assert fsck(app, "c") == []
    for write in (
        lambda: app.documents.bulk("c", random_documents(3, seed=1), encode=False),
        lambda: ensure_collection(app, CollectionSpec("new")),
        lambda: app.catalog.delete("c"),
        lambda: app.feedback.log_impressions("c", "q", {"a": 1}, generation="g000001", by=""),
    ):
        with pytest.raises(UnavailableError, match="data folder cannot be written"):
            write()
    with TestClient(create_api(app), base_url="http://127.0.0.1") as client:
        assert client.post("/v1/search", json={"query": "red fox", "collection": "c"}).status_code == 200
        answer = client.post("/v1/collections", json={"name": "new"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
    app.close()


def test_a_collection_is_not_half_made_on_a_full_disk(small_disk: Path, make_app: Callable[..., App]) -> None:
    app = make_app()
    app.catalog.records().count("key")
    left = 24 << 20
    while left > 512:  # until no file of even half a kilobyte fits
        try:
            with (small_disk / "ballast").open("ab") as ballast:
                ballast.write(bytes(left))
        except OSError:
            left //= 2
    with TestClient(create_api(app), base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        answer = client.post("/v1/collections", json={"name": "new"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (507, "storage_full")
        (small_disk / "ballast").unlink()
        assert client.post("/v1/collections", json={"name": "new"}).status_code == 201
