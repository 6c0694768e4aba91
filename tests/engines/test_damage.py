"""Every file of a data folder, lost, emptied, cut, changed by a bit, or as it was yesterday.

What is answered is right, refused by name, or repaired. It is never wrong while fsck calls it clean.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.documents import random_documents
from support.encoders import use_fake_encoder

from hyblink.app.access.keys import KeyStore, Role
from hyblink.app.application import App
from hyblink.app.bootstrap import build
from hyblink.app.core.errors import CorruptionError, HyblinkError
from hyblink.app.core.settings import Settings
from hyblink.app.core.types.collections import CollectionSpec
from hyblink.app.core.types.search import SearchRequest
from hyblink.app.engines.embedded.records import SqliteRecords
from hyblink.app.operations.collections import check_all, ensure_collection, fsck
from hyblink.app.operations.encoding import encode_now

QUERIES = ("red fox", "blue whale jumps", "engine")
Answers = list[list[tuple[str, float]]]


def opened(folder: Path) -> App:
    app = build(Settings(data_dir=folder))
    use_fake_encoder(app)
    return app


def answers(app: App) -> Answers:
    found = []
    for query in QUERIES:
        hits = app.search.search("default", SearchRequest(query, k=20)).hits
        found.append([(str(hit.doc_id), round(hit.score, 5)) for hit in hits])
    return found


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Answers]:
    """A data folder of yesterday, that of today, and today's answers."""
    root = tmp_path_factory.mktemp("states")
    app = opened(root / "today")
    ensure_collection(app, CollectionSpec("default"))
    app.documents.bulk("default", random_documents(60, seed=1), encode=False)
    encode_now(app, "default")
    KeyStore(app.catalog.records()).create(Role.ADMIN, created="2026-01-01")
    engine = app.catalog.engine("default")
    engine.compact()
    answers(app)
    app.close()
    shutil.copytree(root / "today", root / "yesterday")
    app = opened(root / "today")
    app.documents.bulk("default", random_documents(90, seed=7), encode=False)
    encode_now(app, "default")
    app.catalog.engine("default").compact()
    right = answers(app)
    app.close()
    return root / "yesterday", root / "today", right


def _missing(path: Path, _: Path) -> None:
    path.unlink()


def _empty(path: Path, _: Path) -> None:
    path.write_bytes(b"")


def _truncated(path: Path, _: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])


def _flip(path: Path, share: float) -> None:
    data = bytearray(path.read_bytes())
    if data:
        data[int(len(data) * share)] ^= 4
    path.write_bytes(bytes(data))


def _flipped_early(path: Path, _: Path) -> None:
    _flip(path, 0.22)


def _flipped(path: Path, _: Path) -> None:
    _flip(path, 0.6)


def _flipped_late(path: Path, _: Path) -> None:
    _flip(path, 0.93)


def _yesterday(path: Path, before: Path) -> None:
    if before.exists():
        shutil.copyfile(before, path)


DAMAGES: tuple[Callable[[Path, Path], None], ...] = (
    _missing, _empty, _truncated, _flipped_early, _flipped, _flipped_late, _yesterday
)  # fmt: skip


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.endswith((".lock", ".pid")):
            yield path


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__[1:])
def test_no_damage_is_served_and_called_clean(
    states: tuple[Path, Path, Answers], tmp_path: Path, damage: Callable[[Path, Path], None]
) -> None:
    yesterday, today, right = states
    silent = []
    count = 0
    for original in _files(today):
        name = original.relative_to(today)
        folder = tmp_path / "data"
        shutil.copytree(today, folder)
        damage(folder / name, yesterday / name)
        same = (folder / name).exists() and (folder / name).read_bytes() == original.read_bytes()
        if not same:
            count += 1
            outcome = _outcome(folder, right)
            if outcome:
                silent.append(f"{name}: {outcome}")
        shutil.rmtree(folder)
    assert count > (3 if damage is _yesterday else 10)
    assert silent == []


def _outcome(folder: Path, right: Answers) -> str:
    """What is wrong about how a damaged folder is served; empty if nothing is."""
    try:
        app = opened(folder)
    except HyblinkError:
        return ""  # refused by name
    try:
        try:
            found = answers(app)
        except HyblinkError:
            found = []
        try:
            problems = [text for own in check_all(app).values() for text in own]
        except HyblinkError as error:
            problems = [str(error)]
        if found and found != right and not problems:
            return "other answers, and fsck says nothing"
        if not found and not problems:
            return "no answer, and fsck says nothing"
        return ""
    finally:
        app.close()


def test_a_store_of_yesterday_with_new_writes_gets_indexes_of_its_own(
    states: tuple[Path, Path, Answers], tmp_path: Path
) -> None:
    """The same change numbers, but other changes: what was made of the lost ones must not answer."""
    yesterday, today, right = states
    folder = tmp_path / "data"
    shutil.copytree(today, folder)
    store = Path("collections/default/generations/g000001/store.sqlite")
    shutil.copyfile(yesterday / store, folder / store)
    app = opened(folder)
    change = app.catalog.engine("default").store.change()
    app.documents.bulk("default", random_documents(90, seed=8), encode=False)
    encode_now(app, "default")
    assert app.catalog.engine("default").store.change() == change + 2
    found = answers(app)
    app.close()
    assert found != right
    clean = tmp_path / "clean"
    shutil.copytree(yesterday, clean)
    other = opened(clean)
    other.documents.bulk("default", random_documents(90, seed=8), encode=False)
    encode_now(other, "default")
    assert answers(other) == found
    assert fsck(other, "default") == []
    other.close()


def test_a_store_that_is_put_back_under_a_running_service(states: tuple[Path, Path, Answers], tmp_path: Path) -> None:
    yesterday, today, right = states
    folder = tmp_path / "data"
    shutil.copytree(today, folder)
    app = opened(folder)
    assert answers(app) == right
    store = Path("collections/default/generations/g000001/store.sqlite")
    beside = folder / "put-back"
    shutil.copyfile(yesterday / store, beside)
    for more in ("-wal", "-shm"):
        (folder / f"{store}{more}").unlink(missing_ok=True)
    beside.rename(folder / store)
    found = answers(app)
    (said,) = fsck(app, "default")
    assert "was put back from a copy, or has lost writes" in said
    assert len(fsck(app, "default", repair=True)) == 1
    assert fsck(app, "default") == []
    app.close()
    shutil.copytree(yesterday, tmp_path / "before")
    other = opened(tmp_path / "before")
    assert answers(other) == found
    other.close()


def test_lost_or_emptied_records_do_not_open_the_door(states: tuple[Path, Path, Answers], tmp_path: Path) -> None:
    _, today, _ = states

    def missing(path: Path) -> None:
        path.unlink()

    def empty(path: Path) -> None:
        path.write_bytes(b"")

    def other(path: Path) -> None:
        SqliteRecords(tmp_path / "elsewhere" / "records.sqlite").count("key")
        shutil.copyfile(tmp_path / "elsewhere" / "records.sqlite", path)

    for damage in (missing, empty, other):
        folder = tmp_path / damage.__name__
        shutil.copytree(today, folder)
        damage(folder / "records.sqlite")
        app = opened(folder)
        with pytest.raises(CorruptionError, match="to begin anew without keys, delete"):
            KeyStore(app.catalog.records()).any_active()
        assert "records (keys, jobs, judgements) are" in check_all(app)["(records)"][0]
        app.close()
    (folder / "installation.json").unlink()
    (folder / "records.sqlite").unlink()
    app = opened(folder)
    assert not KeyStore(app.catalog.records()).any_active()  # on purpose
    assert "(records)" not in check_all(app)
    app.close()


def test_a_changed_record_is_said(states: tuple[Path, Path, Answers], tmp_path: Path) -> None:
    _, today, _ = states
    shutil.copytree(today, tmp_path / "data")
    with sqlite3.connect(tmp_path / "data" / "records.sqlite") as connection:
        assert connection.execute("UPDATE records SET body = replace(body, 'admin', 'bdmin')").rowcount
    connection.close()
    app = opened(tmp_path / "data")
    assert check_all(app)["(records)"] == ["1 records do not match their checksums"]
    app.close()


def test_a_lost_store_is_no_empty_one(states: tuple[Path, Path, Answers], tmp_path: Path) -> None:
    _, today, _ = states
    shutil.copytree(today, tmp_path / "data")
    store = tmp_path / "data" / "collections/default/generations/g000001/store.sqlite"
    store.unlink()
    app = opened(tmp_path / "data")
    with pytest.raises(CorruptionError, match="is gone"):
        answers(app)
    with pytest.raises(CorruptionError, match="is gone"):
        app.documents.bulk("default", random_documents(3, seed=1))
    assert "is gone" in fsck(app, "default")[0]
    assert not store.exists()
    app.close()
