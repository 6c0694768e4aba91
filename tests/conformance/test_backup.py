"""A backup taken while documents are written holds what was acknowledged before it, and comes back whole."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hyblink.app.application import App
from hyblink.app.core.errors import ConflictError, CorruptionError, InvalidInputError
from hyblink.app.core.ports.jobs import Record
from hyblink.app.core.types.collections import CollectionSpec
from hyblink.app.core.types.search import SearchRequest
from hyblink.app.operations.backup import back_up, restore
from hyblink.app.operations.collections import ensure_collection, fsck
from hyblink.app.operations.encoding import encode_now


def _documents(first: int, count: int) -> list[object]:
    return [
        {"id": str(n), "title": f"Title {n}", "text": f"haus number{n} garden"} for n in range(first, first + count)
    ]


def _found(app: App) -> set[str]:
    hits = app.search.search("c", SearchRequest("haus", k=400, candidates=400)).hits
    return {str(hit.doc_id) for hit in hits}


@pytest.fixture
def filled(make_app: Callable[..., App]) -> App:
    app = make_app()
    ensure_collection(app, CollectionSpec("c"))
    app.documents.bulk("c", _documents(0, 100), encode=False)
    encode_now(app, "c")
    app.catalog.engine("c").compact()
    app.catalog.records().put(Record("note", "n1", {"text": "kept"}))
    models = app.settings.models_dir / "mine"
    models.mkdir(parents=True)
    (models / "weights.bin").write_bytes(b"weights")
    return app


def test_a_backup_under_writes_comes_back_whole(make_app: Callable[..., App], filled: App, tmp_path: Path) -> None:
    stop = threading.Event()
    acknowledged: list[int] = []

    def write() -> None:
        at = 100
        while not stop.is_set() and at < 380:
            assert not filled.documents.bulk("c", _documents(at, 5), encode=False).errors
            acknowledged.append(at + 5)
            at += 5

    writer = threading.Thread(target=write)
    writer.start()
    try:
        while not acknowledged:
            time.sleep(0.01)
        before = acknowledged[-1]
        made = back_up(filled, tmp_path / "backup")
        after = acknowledged[-1]
    finally:
        stop.set()
        writer.join()
    assert made.collections == ("c",)
    filled.documents.bulk("c", _documents(390, 5), encode=False)
    lost = _found(filled)
    filled.catalog.records().put(Record("note", "n2", {"text": "later"}))
    filled.close()
    with pytest.raises(ConflictError):
        restore(filled.settings, tmp_path / "backup")
    restore(filled.settings, tmp_path / "backup", replace=True)
    app = make_app("data")
    found = _found(app)
    assert {str(n) for n in range(before)} <= found <= {str(n) for n in range(after + 5)}
    assert found < lost
    assert fsck(app, "c") == []
    assert app.catalog.records().get("note", "n1") is not None
    assert app.catalog.records().get("note", "n2") is None
    assert (filled.settings.models_dir / "mine" / "weights.bin").read_bytes() == b"weights"
    assert not app.documents.bulk("c", _documents(1000, 60), encode=False).errors
    encode_now(app, "c")
    assert _found(app) == found | {str(n) for n in range(1000, 1060)}
    assert fsck(app, "c") == []
    with pytest.raises(ConflictError):
        back_up(app, tmp_path / "backup")


def test_a_damaged_backup_is_refused_before_anything_is_moved(
    make_app: Callable[..., App], filled: App, tmp_path: Path
) -> None:
    back_up(filled, tmp_path / "backup")
    filled.close()
    with pytest.raises(InvalidInputError, match="no backup"):
        restore(filled.settings, tmp_path, replace=True)
    path = tmp_path / "backup" / "models" / "mine" / "weights.bin"
    path.write_bytes(b"Weights")
    with pytest.raises(CorruptionError, match=r"weights\.bin does not match"):
        restore(filled.settings, tmp_path / "backup", replace=True)
    path.unlink()
    with pytest.raises(CorruptionError, match="wrong size"):
        restore(filled.settings, tmp_path / "backup", replace=True)
    assert len(_found(make_app("data"))) == 100
