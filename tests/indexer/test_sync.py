"""A collection in step with a folder: histories of changes end equal to the folder, and nothing is lost with a disk."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support.services import SOAK

from hyblink.app.application import App
from hyblink.app.core.errors import ConflictError, NotFoundError
from hyblink.app.core.types.ranking import Signal
from hyblink.app.core.types.search import SearchRequest
from hyblink.app.operations.ingestion import ingest_source
from hyblink.app.operations.sources import named
from hyblink.app.operations.sync import Synced, sync
from hyblink.indexer.readers.files import FileSource

HISTORIES = 1000 if SOAK else 25


def run(app: App, folder: Path, **options: bool) -> Synced:
    prefix = named(app, "c", folder).prefix
    source = FileSource(folder, prefix=prefix, name=named(app, "c", folder).name)
    return sync(app, "c", source, wait=False, **options)


def stored(app: App) -> dict[str, str]:
    return {one.document.id: one.document.text for one in app.catalog.engine("c").store.reader().export()}


def test_new_changed_renamed_and_gone(make_app: Callable[..., App], tmp_path: Path) -> None:
    app, folder = make_app(), tmp_path / "notes"
    folder.mkdir()
    for name in "abcd":
        (folder / f"{name}.txt").write_text(f"text of {name}")
    (folder / "rows.jsonl").write_text('{"id": "r1", "text": "one"}\n{"id": "r2", "text": "two"}\n')
    run(app, folder)
    assert set(stored(app)) == {"a.txt", "b.txt", "c.txt", "d.txt", "r1", "r2"}
    (folder / "a.txt").unlink()
    (folder / "b.txt").write_text("changed")
    (folder / "c.txt").rename(folder / "moved.txt")
    (folder / "rows.jsonl").write_text('{"id": "r2", "text": "two"}\n{"id": "r3", "text": "three"}\n')
    told = run(app, folder, dry_run=True)
    assert (told.added, told.changed, told.removed) == (["moved.txt", "r3"], ["b.txt"], ["a.txt", "c.txt", "r1"])
    assert set(stored(app)) == {"a.txt", "b.txt", "c.txt", "d.txt", "r1", "r2"}, "a dry run writes nothing"
    done = run(app, folder)
    assert done.removed == ["a.txt", "c.txt", "r1"]
    assert stored(app) == {
        "b.txt": "changed", "moved.txt": "text of c", "d.txt": "text of d", "r2": "two", "r3": "three"
    }  # fmt: skip
    again = run(app, folder)
    assert again.ingested is not None
    assert (again.ingested.report.unchanged, again.removed) == (5, [])


def test_what_cannot_be_read_or_is_not_there_is_not_removed(make_app: Callable[..., App], tmp_path: Path) -> None:
    app, folder = make_app(), tmp_path / "notes"
    folder.mkdir()
    for number in range(30):
        (folder / f"{number}.txt").write_text(f"text {number}")
    (folder / "rows.csv").write_text("id,text\nr1,one\nr2,two\n")
    run(app, folder)
    (folder / "1.txt").write_bytes(b"\xc3\xa4\xc3\xb6\xc3\xbc\xc3\x9f text \xff")  # UTF-8 with a wrong byte
    done = run(app, folder)
    assert (done.removed, done.kept) == ([], ["1.txt"])
    assert stored(app)["1.txt"] == "text 1"
    for number in range(2, 25):
        (folder / f"{number}.txt").unlink()
    with pytest.raises(ConflictError, match="most documents of this source are gone"):
        run(app, folder)
    assert len(stored(app)) == 32
    shutil.move(folder, tmp_path / "unmounted")
    with pytest.raises(NotFoundError):
        run(app, folder)
    shutil.move(tmp_path / "unmounted", folder)
    run(app, folder, force=True)
    assert len(stored(app)) == 9


def test_a_folder_that_was_ingested_before_is_in_step_too(make_app: Callable[..., App], tmp_path: Path) -> None:
    app, one, two = make_app(), tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
        for name in ("a.md", "b.md"):
            (folder / name).write_text(f"# {folder.name} {name}")
        ingest_source(app, FileSource(folder, prefix=named(app, "c", folder).prefix), "c", wait=False)
        run(app, folder)
    (one / "a.md").unlink()
    run(app, one)
    assert set(stored(app)) == {"b.md", "two/a.md", "two/b.md"}, "the other source is not touched"


def test_documents_of_another_source_without_a_name_are_not_taken_for_its_own(
    make_app: Callable[..., App], tmp_path: Path
) -> None:
    """Read before sources had names, or with a field that is called `file`."""
    app, one, two = make_app(), tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
        (folder / "a.md").write_text(f"# {folder.name}")
    ingest_source(app, FileSource(one), "c", wait=False)
    app.documents.bulk("c", [{"id": "own", "text": "by hand", "metadata": {"file": "x"}}], encode=False)
    run(app, two)
    (two / "a.md").unlink()
    run(app, two)
    assert set(stored(app)) == {"a.md", "own"}
    run(app, one)
    assert set(stored(app)) == {"a.md", "own"}


def test_any_history_ends_equal_to_the_folder(make_app: Callable[..., App], tmp_path: Path) -> None:
    app, folder = make_app(), tmp_path / "notes"
    folder.mkdir()
    draw = random.Random(7)
    for history in range(HISTORIES):
        for _ in range(draw.randint(1, 6)):
            names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*") if path.is_file())
            what = draw.choice(["add", "add", "change", "rename", "delete", "rows", "folder"])
            if what in {"add", "folder"} or not names:
                path = folder / ("sub" if what == "folder" else ".") / f"n{draw.randint(0, 30)}.txt"
                path.parent.mkdir(exist_ok=True)
                path.write_text(f"text {draw.random()}")
            elif what == "change":
                texts = [name for name in names if name.endswith(".txt")]  # rows that are wrong keep what was right
                (folder / draw.choice(texts or ["n.txt"])).write_text(f"other {draw.random()}")
            elif what == "rename":
                (folder / draw.choice(names)).rename(folder / f"m{draw.randint(0, 30)}.txt")
            elif what == "delete":
                (folder / draw.choice(names)).unlink()
            else:
                rows = [{"id": f"r{draw.randint(0, 20)}", "text": f"row {draw.random()}"} for _ in range(4)]
                (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        run(app, folder, force=True)
        expected = {one.document.id: one.document.text for one in FileSource(folder).items() if one.document}
        assert stored(app) == expected, history
    assert app.catalog.engine("c").check() == []


def test_renamed_files_are_not_encoded_again(make_app: Callable[..., App], tmp_path: Path) -> None:
    app, folder = make_app(), tmp_path / "notes"
    folder.mkdir()
    for number in range(12):
        (folder / f"note {number}.txt").write_text(f"text of note {number} " * 200)
    (folder / "titled.md").write_text("# Travel\n\nto the sea")

    def in_step() -> tuple[Synced, int]:
        own = named(app, "c", folder)
        done = sync(app, "c", FileSource(folder, prefix=own.prefix, name=own.name))
        assert done.ingested is not None
        return done, done.ingested.encoded

    _, encoded = in_step()
    counts = app.catalog.engine("c").store.reader().counts()
    assert encoded == counts.passages > 24
    before = vectors(app)
    (folder / "note 3.txt").rename(folder / "moved.txt")
    (folder / "titled.md").rename(folder / "other.md")
    (folder / "deep").mkdir()
    (folder / "note 4.txt").rename(folder / "deep" / "note 4.txt")
    done, encoded = in_step()
    assert (done.renamed, encoded) == (3, 0)
    assert done.removed == ["note 3.txt", "note 4.txt", "titled.md"]
    after = vectors(app)
    for old, new in (("note 3.txt", "moved.txt"), ("titled.md", "other.md"), ("note 4.txt", "deep/note 4.txt")):
        assert after[new] == before[old]
    assert app.catalog.engine("c").check() == []
    # The new name is searched; the old one is not.
    first = app.search.search("c", SearchRequest("moved", signals=(Signal.BM25,))).hits
    assert [hit.doc_id for hit in first] == ["moved.txt"]
    (folder / "moved.txt").write_text("a new text")
    assert in_step()[1] == 1


def vectors(app: App) -> dict[str, list[list[float]]]:
    return {
        one.document.id: [vector.tolist() for vector in one.vectors if vector is not None]
        for one in app.catalog.engine("c").store.reader().export()
    }
