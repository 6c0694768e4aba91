"""Folders as people have them: odd names, links, files that cannot be read, archives of all kinds. Nothing is dropped unsaid."""

from __future__ import annotations

import gzip
import io
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import py7zr
import pytest

from hyblink.app.application import App
from hyblink.app.operations.ingestion import ingest_source
from hyblink.app.operations.sources import named
from hyblink.indexer.readers.files import FileSource


def outcomes(path: Path, **options: object) -> dict[str, tuple[str, str]]:
    """Name → (what became of the file, why)."""
    items = FileSource(path, **options).items()  # type: ignore[arg-type]
    return {one.file: (one.outcome, one.why or (str(one.error) if one.error else "")) for one in items if one.outcome}


def texts(path: Path, **options: object) -> dict[str, str]:
    items = FileSource(path, **options).items()  # type: ignore[arg-type]
    return {one.document.id: one.document.text for one in items if one.document}


def test_names_and_links(tmp_path: Path) -> None:
    root = tmp_path / "in"
    (root / "sub").mkdir(parents=True)
    (root / "plain.txt").write_text("plain")
    (root / "line\nbreak.txt").write_text("break")
    (root / "日本語 'a', [b]%–é.txt").write_text("script")
    with open(os.fsencode(root) + b"/caf\xe9.txt", "wb") as out:
        out.write(b"latin name")
    (root / "README").write_text("no suffix")
    (root / "data.qqq").write_text("text of no known suffix")
    (root / "photo.png").write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00")
    (root / ".git").mkdir()
    (root / ".git" / "config").write_text("hidden")
    (root / "~$lease.docx").write_bytes(b"lock")
    (root / "empty.csv").write_text("")
    (root / "nothing.txt").symlink_to(root / "gone")
    (root / "sub" / "circle").symlink_to(root)
    (root / "sub" / "inner.md").write_text("# Inner")
    found = outcomes(root)
    read = {name for name, (what, _) in found.items() if what == "read"}
    assert read == {
        "plain.txt", "line\\nbreak.txt", "日本語 'a', [b]%–é.txt", "caf\\xe9.txt", "README", "data.qqq", "sub/inner.md"
    }  # fmt: skip
    assert found["photo.png"] == ("skipped", "a picture; --ocr reads the text in it")
    assert found[".git"][0] == found["~$lease.docx"][0] == found["empty.csv"][0] == "skipped"
    assert found["sub/circle"] == ("skipped", "a link to a folder that is read already")
    assert found["nothing.txt"][0] == "rejected"
    assert len(found) == 13


def test_a_file_that_vanishes_or_may_not_be_read_costs_itself_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.txt", "b.txt", "c.txt", "d.jsonl"):
        (tmp_path / name).write_text('{"id": "d", "text": "x"}')
    source = FileSource(tmp_path)
    items = source.items()
    first = next(items)
    (tmp_path / "b.txt").unlink()
    (tmp_path / "c.txt").chmod(0)
    rest = {one.file: one for one in items if one.outcome}
    assert first.outcome == "read"
    assert rest["b.txt"].outcome == "rejected"
    assert "No such file" in str(rest["b.txt"].error)
    if os.geteuid():  # root may read everything
        assert "Permission denied" in str(rest["c.txt"].error)
    assert rest["d.jsonl"].outcome == "read"
    (tmp_path / "c.txt").chmod(stat.S_IRUSR)


def zipped(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


FILES = {"b.md": b"# B\n\nbeta", "sub/a.txt": b"alpha", "t.csv": b"id,text\n1,one\n2,two\n"}


def test_archives_of_all_kinds_and_in_each_other(tmp_path: Path) -> None:
    root = tmp_path / "in"
    root.mkdir()
    (root / "a.zip").write_bytes(zipped({**FILES, "inner.zip": zipped({"deep.txt": b"deep"}), ".hidden": b"x"}))
    with tarfile.open(root / "b.tar.gz", "w:gz") as tar:
        for name, data in FILES.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
        link = tarfile.TarInfo("link.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    with py7zr.SevenZipFile(root / "c.7z", "w") as archive:
        archive.writestr("seven", "s.txt")
    (root / "d.txt.gz").write_bytes(gzip.compress(b"zipped"))
    assert texts(root) == {
        "a.zip/b.md": "B\n\nbeta", "a.zip/sub/a.txt": "alpha", "a.zip/inner.zip/deep.txt": "deep",
        "b.tar.gz/b.md": "B\n\nbeta", "b.tar.gz/sub/a.txt": "alpha", "c.7z/s.txt": "seven", "d.txt.gz": "zipped",
        "1": "one", "2": "two",
    }  # fmt: skip
    assert outcomes(root)["a.zip/.hidden"] == ("skipped", "hidden")


def test_a_run_goes_on_inside_an_archive(tmp_path: Path) -> None:
    names = ["a", "a.b", "a.zip/x", "a.zip.bak", "sub/a", "sub.a", "z"]
    inner = {name: name.encode() for name in names if "zip" not in name}
    inner |= {"a.zip": zipped({"x": b"a.zip/x"}), "a.zip.bak": b"a.zip.bak"}
    (tmp_path / "o.zip").write_bytes(zipped(inner))
    (tmp_path / "o.zip.txt").write_text("beside")
    (tmp_path / "rows.jsonl").write_text("".join(f'{{"id": "r{n}", "text": "x"}}\n' for n in range(3)))
    whole = list(FileSource(tmp_path).items())
    documents = [one.document.id for one in whole if one.document]
    assert len(documents) == len(names) + 1 + 3
    positions = [one.position for one in whole]
    for position in positions:
        # The last row of a file and what became of it share a position, and are passed over together.
        last = len(positions) - positions[::-1].index(position)
        assert [one.position for one in FileSource(tmp_path).items(after=position)] == positions[last:], position


def test_bombs_and_paths_that_lead_out(tmp_path: Path) -> None:
    root = tmp_path / "in"
    root.mkdir()
    (root / "bomb.zip").write_bytes(zipped({"zeros.txt": bytes(200 << 20), "good.txt": b"good"}))
    (root / "out.zip").write_bytes(
        zipped({"../../../../escape.txt": b"inside", "/etc/abs.txt": b"abs", "C:\\w.txt": b"w"})
    )
    (root / "broken.zip").write_bytes(zipped(FILES)[:-30])
    (root / "good.txt").write_text("good")
    before = set(tmp_path.parent.rglob("escape.txt"))
    found = outcomes(root)
    assert found["bomb.zip"][0] == "rejected"
    assert "unpacks to too much" in found["bomb.zip"][1]
    assert found["broken.zip"][0] == "rejected"
    assert texts(root) == {
        "good.txt": "good", "out.zip/escape.txt": "inside", "out.zip/etc/abs.txt": "abs", "out.zip/w.txt": "w"
    }  # fmt: skip
    assert set(tmp_path.parent.rglob("escape.txt")) == before
    assert not Path("/etc/abs.txt").exists()


def test_mails_and_their_attachments(tmp_path: Path) -> None:
    mail = (
        b"From: a@example.org\r\nTo: b@example.org\r\nSubject: Plan\r\nMIME-Version: 1.0\r\n"
        b'Content-Type: multipart/mixed; boundary="x"\r\n\r\n--x\r\nContent-Type: text/plain\r\n\r\nSee the plan.\r\n'
        b'--x\r\nContent-Type: text/csv\r\nContent-Disposition: attachment; filename="../p.csv"\r\n\r\n'
        b"id,text\r\np1,from the table\r\n--x--\r\n"
    )
    (tmp_path / "m.eml").write_bytes(mail)
    (tmp_path / "box.mbox").write_bytes(b"From a Mon\n" + mail.replace(b"\r\n", b"\n").replace(b"p1,", b"p2,") + b"\n")
    found = texts(tmp_path)
    assert set(found) == {"m.eml", "p1", "box.mbox/000001.eml", "p2"}
    assert found["p1"] == "from the table"
    assert "See the plan." in found["box.mbox/000001.eml"]


def test_two_folders_never_collide_and_keep_their_names(make_app: Callable[..., App], tmp_path: Path) -> None:
    app = make_app()
    for where, text in (("one/docs", "first"), ("two/docs", "second"), ("three/notes", "third")):
        folder = tmp_path / where
        folder.mkdir(parents=True)
        (folder / "README.md").write_text(f"# {text}")
    for _ in range(2):
        for where in ("one/docs", "two/docs", "three/notes", "two/docs/README.md"):
            path = tmp_path / where
            ingest_source(app, FileSource(path, prefix=named(app, "c", path).prefix), "c", wait=False)
    stored = {one.document.id: one.document.text for one in app.catalog.engine("c").store.reader().export()}
    assert stored == {"README.md": "first", "docs/README.md": "second", "notes/README.md": "third"}


def test_nothing_readable_is_told_apart_from_nothing_new(make_app: Callable[..., App], tmp_path: Path) -> None:
    app = make_app()
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "x.png").write_bytes(b"\x89PNG\x00")
    done = ingest_source(app, FileSource(folder), "c", wait=False)
    assert done.nothing_read
    assert done.report.skipped == ["x.png: a picture; --ocr reads the text in it"]
    assert "x.png" in Path(done.rejects_file).read_text()
    (folder / "y.txt").write_text("text")
    for _ in range(2):
        done = ingest_source(app, FileSource(folder), "c", wait=False)
        assert not done.nothing_read
    assert (done.report.unchanged, done.report.files_read, done.report.files_skipped) == (1, 1, 1)
