"""A file system that is really full: small, in memory, mounted for the test."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.documents import random_documents
from support.services import missing_service

from hyblink.app.application import App
from hyblink.app.core.errors import StorageFullError
from hyblink.app.core.types.collections import CollectionSpec
from hyblink.app.core.types.ranking import Signal
from hyblink.app.core.types.search import SearchRequest
from hyblink.app.operations.collections import ensure_collection
from hyblink.app.operations.encoding import encode_now

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
