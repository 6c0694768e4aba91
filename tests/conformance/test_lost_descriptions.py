"""A collection whose description is lost is never "not there": nothing is written over it, and it is restored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hyblink.app.application import App
from hyblink.app.core.errors import CorruptionError, NotFoundError
from hyblink.app.core.types.collections import CollectionSpec
from hyblink.app.core.types.search import SearchRequest
from hyblink.app.operations.collections import check_all, ensure_collection, fsck
from hyblink.app.operations.generations import rebuild
from hyblink.app.operations.maintenance import sweep

SPEC = CollectionSpec("c", analyzer="standard", chunk_chars=300, chunk_overlap_chars=20)


def filled(make_app: Callable[..., App]) -> App:
    app = make_app()
    ensure_collection(app, SPEC)
    app.documents.bulk("c", [{"id": str(n), "text": f"haus {n}"} for n in range(30)], encode=False)
    return app


def found(app: App) -> int:
    return len(app.search.search("c", SearchRequest("haus", k=100)).hits)


def registry(app: App) -> Any:
    return app.catalog._registry


@pytest.mark.parametrize("lost", [("collection",), ("collection", "current"), ("current",)])
def test_a_lost_description_is_said_and_restored(make_app: Callable[..., App], lost: tuple[str, ...]) -> None:
    app = filled(make_app)
    assert found(app) == 30
    rebuild(app, "c")
    for key in lost:
        registry(app).remove("c", key)
    app = make_app("data")
    assert app.catalog.damaged() == ["c"]
    if "collection" in lost:
        assert "c" not in app.catalog.names()
        for act in (
            lambda: ensure_collection(app, CollectionSpec("c")),
            lambda: app.documents.bulk("c", [{"id": "new", "text": "x"}], encode=False),
        ):
            with pytest.raises(CorruptionError, match="description of the collection 'c' is missing"):
                act()
    if "current" in lost:
        with pytest.raises(CorruptionError):
            found(app)
    else:
        assert found(app) == 30
    assert len(check_all(app)["c"]) == 1
    assert len(fsck(app, "c", repair=True)) == 1
    assert fsck(app, "c") == []
    assert app.catalog.spec("c") == SPEC
    assert app.catalog.current("c") == "g000002"
    assert found(app) == 30


def test_a_description_of_an_earlier_release_is_copied_in_time(make_app: Callable[..., App]) -> None:
    app = filled(make_app)
    registry(app).remove("c", "generations/g000001/spec")
    sweep(app)
    registry(app).remove("c", "collection")
    app.catalog.restore("c")
    assert app.catalog.spec("c") == SPEC


def test_without_a_copy_it_is_guessed_and_said(make_app: Callable[..., App]) -> None:
    app = filled(make_app)
    registry(app).remove("c", "generations/g000001/spec")
    registry(app).remove("c", "collection")
    assert "passages of the usual size" in fsck(app, "c", repair=True)[0]
    assert app.catalog.spec("c").analyzer == "standard"
    assert found(app) == 30


def test_remains_of_a_creation_or_deletion_are_no_loss(make_app: Callable[..., App], monkeypatch: Any) -> None:
    app = filled(make_app)
    drop = registry(app).drop
    monkeypatch.setattr(registry(app), "drop", lambda *_: registry(app).remove("c", "collection"))  # it was killed
    app.catalog.delete("c")
    monkeypatch.setattr(registry(app), "drop", drop)
    app = make_app("data")
    assert app.catalog.damaged() == []
    with pytest.raises(NotFoundError, match="no such collection"):
        app.catalog.spec("c")
    ensure_collection(app, CollectionSpec("c"))
    assert found(app) == 0


def test_a_killed_creation_leaves_nothing(make_app: Callable[..., App], monkeypatch: Any) -> None:
    app = make_app()
    write = registry(app).write

    class Killed(BaseException):
        pass

    def killed(name: str, key: str, value: Any) -> None:
        if key == "current":
            raise Killed
        write(name, key, value)

    monkeypatch.setattr(registry(app), "write", killed)
    monkeypatch.setattr(registry(app), "drop", lambda *_: None)
    with pytest.raises(Killed):
        ensure_collection(app, SPEC)
    app = make_app("data")
    assert (app.catalog.names(), app.catalog.damaged()) == ([], [])
    ensure_collection(app, CollectionSpec("c"))
    assert app.catalog.names() == ["c"]
