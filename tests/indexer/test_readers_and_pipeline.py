"""Readers and the pipeline: every format, bad rows, resuming."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.documents import random_documents

from hyblink.app.application import App
from hyblink.app.core.errors import InvalidInputError, NotFoundError
from hyblink.app.core.types.collections import CollectionSpec
from hyblink.app.operations.collections import ensure_collection
from hyblink.indexer.ingest.pipeline import IngestReport, RejectsFile, ingest
from hyblink.indexer.readers.files import FileSource
from hyblink.indexer.readers.format import Row
from hyblink.indexer.readers.formats import FORMATS
from hyblink.indexer.readers.python_package import PythonSource


def run(
    app: App, source: FileSource | PythonSource, tmp_path: Path, batch: int = 10, **options: object
) -> IngestReport:
    ensure_collection(app, CollectionSpec("c"))

    def upsert(documents, progress):  # type: ignore[no-untyped-def]
        return app.documents.upsert("c", documents, encode=False, progress=progress)

    return ingest(
        source,
        app.catalog.engine("c"),
        upsert,
        rejects=RejectsFile(tmp_path / "rejects.jsonl"),
        batch_documents=batch,
        **options,
    )  # type: ignore[arg-type]


def documents_of(source: FileSource) -> dict[str, tuple[str, str, dict]]:
    return {
        i.document.id: (i.document.title, i.document.text, dict(i.document.metadata))
        for i in source.items()
        if i.document
    }


def test_every_format_in_one_folder(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"_id": 7, "title": "T", "text": "x", "year": 2020}\n\n{"contents": "no id"}\n')
    (tmp_path / "b.csv").write_text('id,title,text,price\nr1,"A, b","line one\nline two",1.50\nr2,T,x,007\n')
    (tmp_path / "c.tsv").write_text('id\ttext\nt1\tsome "quoted" text\n'.replace('"', ""))
    (tmp_path / "d.md").write_text("# Heading\n\nSome *words*.\n")
    (tmp_path / "e.html").write_text("<title>Page</title><script>no()</script><p>Body &amp; soul</p>")
    (tmp_path / "f.txt").write_text("plain")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "g.jsonl.gz").write_bytes(gzip.compress(b'{"id": "z", "text": "zipped"}\n'))
    (tmp_path / ".hidden.txt").write_text("hidden")
    (tmp_path / "ignored.bin").write_bytes(b"\x00")
    assert documents_of(FileSource(tmp_path)) == {
        "7": ("T", "x", {"year": 2020}),
        "a.jsonl:3": ("", "no id", {}),
        "r1": ("A, b", "line one\nline two", {"price": "1.50"}),
        "r2": ("T", "x", {"price": "007"}),
        "t1": ("", "some quoted text", {}),
        "d.md": ("Heading", "Heading\n\nSome words.", {"file": "d.md", "format": "markdown"}),
        "e.html": ("Page", "Body & soul", {"file": "e.html", "format": "html"}),
        "f.txt": ("f", "plain", {"file": "f.txt", "format": "text"}),
        "z": ("", "zipped", {}),
    }


def pdf(text: str) -> bytes:
    """A PDF of one page, by hand."""
    stream = f"BT /F1 24 Tf 72 700 Td ({text}) Tj ET".encode()
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
        b"<</Length %d>>stream\n%s\nendstream" % (len(stream), stream),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    out, offsets = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += b"%d 0 obj%s endobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    end = b"xref\n0 6\n0000000000 65535 f \n" + table
    return out + end + b"trailer<</Size 6/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % len(out)


def test_pdf(tmp_path: Path) -> None:
    (tmp_path / "p.pdf").write_bytes(pdf("Hello hybrid world"))
    assert documents_of(FileSource(tmp_path))["p.pdf"] == (
        "p",
        "Hello hybrid world",
        {"file": "p.pdf", "format": "pdf", "pages": 1},
    )
    (tmp_path / "p.pdf").write_bytes(b"%PDF-1.4 rubbish")
    items = list(FileSource(tmp_path).items())
    assert [item.error.code if item.error else "" for item in items] == ["invalid_input"]


def test_links_that_lead_out_of_what_a_job_may_read_are_rejected_by_name(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    root.mkdir()
    elsewhere.mkdir()
    (root / "a.txt").write_text("mine")
    (elsewhere / "secret.txt").write_text("secret")
    (elsewhere / "secret.jsonl").write_text('{"id": "s", "text": "secret"}')
    (root / "b.txt").symlink_to(elsewhere / "secret.txt")
    (root / "c.jsonl").symlink_to(elsewhere / "secret.jsonl")
    (root / "d.txt").symlink_to(root / "a.txt")
    found = {item.file: item for item in FileSource(root, inside=[root]).items()}
    assert {name: item.document.text for name, item in found.items() if item.document} == {
        "a.txt": "mine",
        "d.txt": "mine",
    }
    for name in ("b.txt", "c.jsonl"):
        assert "a link that leads out of the folders that jobs may read" in str(found[name].error)
    assert sum(item.document is not None for item in FileSource(root).items()) == 4


def test_beir_folder(tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl").write_text('{"_id": "d1", "title": "", "text": "x", "metadata": {"a": 1}}\n')
    (tmp_path / "queries.jsonl").write_text('{"_id": "q1", "text": "not a document"}\n')
    source = FileSource(tmp_path)
    assert source.is_beir
    assert documents_of(source) == {"d1": ("", "x", {"a": 1})}
    with pytest.raises(InvalidInputError, match="not a BEIR folder"):
        FileSource(tmp_path / "queries.jsonl", format="beir")


def test_bad_rows_are_reported_and_never_stop_the_rest(make_app: Callable[..., App], tmp_path: Path) -> None:
    rows = tmp_path / "in" / "rows.jsonl"
    rows.parent.mkdir()
    good = json.dumps({"id": "good1", "text": "alpha"}).encode()
    rows.write_bytes(
        b"\n".join(
            [
                good, b"{not json", b'["a list"]', b'{"id": "x", "text": 3}', b"\xff\xfe\xff", b'{"id": "y", "text": "a\\u0000b"}',
                b'{"id": "z", "text": "\\ud800"}', b'{"id": "long", "text": "' + b"x" * 3_000_000 + b'"}', b'{"id": "good2", "text": "beta"}',
                b'{"id": "good1", "text": "twice"}', b'{"id": "m", "text": "x", "nested": {"a": 1}}',
            ]
        )
    )  # fmt: skip
    (rows.parent / "broken.jsonl.gz").write_bytes(gzip.compress(b'{"id": "g", "text": "x"}\n' * 9000)[:-80])
    (rows.parent / "cut.csv").write_text('id,text\na,ok\nb\nc,"x,y"\nd,"open quote\n')
    app = make_app()
    report = run(app, FileSource(rows.parent, max_row_bytes=1_000_000), tmp_path, batch=100)
    reader = app.catalog.engine("c").store.reader()
    assert {d.document.id for d in reader.export()} >= {"good1", "good2", "a", "c"}
    rejects = [json.loads(line) for line in (tmp_path / "rejects.jsonl").read_text().splitlines()]
    by_place = {(r["file"], r["line"]): r["code"] for r in rejects}
    expected = dict.fromkeys([("rows.jsonl", n) for n in (2, 3, 5, 6, 7)], "invalid_input")
    expected |= {("rows.jsonl", 8): "too_large"}
    assert expected == {place: code for place, code in by_place.items() if place[0] == "rows.jsonl"}
    assert any(file == "broken.jsonl.gz" and code == "invalid_input" for (file, _), code in by_place.items())
    assert report.rejected == len(rejects)
    assert report.replaced > 1
    documents = {d.document.id: d.document for d in reader.export()}
    assert documents["good1"].text == "twice"
    assert documents["x"].text == "3"
    assert documents["m"].metadata == {"nested.a": 1}
    assert documents["d"].text == '"open quote'
    assert by_place["cut.csv", 3] == "invalid_input", "an id alone is no document"
    assert "never closed" in " ".join(report.notes)


def test_a_line_of_a_gigabyte_is_skipped_in_bounded_memory(tmp_path: Path) -> None:
    """The line is sparse zeros on disk; reading it must not hold it."""
    import subprocess

    path = tmp_path / "huge.jsonl"
    with path.open("wb") as file:
        file.write(b'{"id": "before", "text": "x"}\n')
        file.seek(2**30, 1)
        file.write(b'\n{"id": "after", "text": "x"}\n')
    script = (
        "import sys\nfrom pathlib import Path\nfrom hyblink.indexer.readers.files import FileSource\n"
        "for i in FileSource(Path(sys.argv[1])).items():\n"
        "  if i.is_row: print(i.line, i.document.id if i.document else i.error.code)\n"
        "print(next(l.split()[1] for l in open('/proc/self/status') if l.startswith('VmHWM')))\n"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, cwd=root, check=True
    )
    lines = done.stdout.split("\n")
    assert lines[:3] == ["1 before", "2 too_large", "3 after"]
    assert int(lines[3]) < 300_000, "kilobytes resident"


def test_a_run_that_was_cut_short_goes_on_where_it_stopped(make_app: Callable[..., App], tmp_path: Path) -> None:
    documents = random_documents(95, seed=4)
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(d) + "\n" for d in documents))

    class CutShort(FileSource):
        def items(self, after: str | None = None):  # type: ignore[no-untyped-def]
            for item in super().items(after):
                if item.line == 58:
                    raise KeyboardInterrupt
                yield item

    app = make_app()
    with pytest.raises(KeyboardInterrupt):
        run(app, CutShort(path), tmp_path)
    assert app.catalog.engine("c").store.reader().counts().documents == 50
    report = run(app, FileSource(path), tmp_path)
    assert (report.resumed_after, report.created, report.unchanged) == ("rows.jsonl:50", 45, 0)
    again = run(app, FileSource(path), tmp_path)
    assert (again.resumed_after, again.created, again.unchanged) == ("", 0, 95)
    assert app.catalog.engine("c").check() == []


def test_an_installed_package_is_read_without_importing_it() -> None:
    loaded = set(sys.modules)
    items = [item.document for item in PythonSource("wsgiref").items() if item.document]
    titles = {document.title: document for document in items}
    assert "wsgiref.util.FileWrapper" in titles
    assert "wsgiref.validate" not in set(sys.modules) - loaded
    metadata = titles["wsgiref.simple_server.make_server"].metadata
    assert {k: metadata[k] for k in ("package", "module", "kind", "name")} == {
        "package": "wsgiref", "module": "wsgiref.simple_server", "kind": "function", "name": "make_server",
    }  # fmt: skip
    assert titles["wsgiref.simple_server.make_server"].text.startswith("make_server(host, port, app")
    with pytest.raises(NotFoundError, match="no such installed package; received 'nopackage'"):
        PythonSource("nopackage")
    with pytest.raises(InvalidInputError):
        PythonSource("../etc")


def test_the_standard_library_has_sources_topics_and_c_functions() -> None:
    documents = {i.document.title: i.document for i in PythonSource("python").items() if i.document}
    assert 6000 < len(documents) < 9000, len(documents)
    for title, kind in [
        ("json.dump", "function"),
        ("itertools.chain", "class"),
        ("str.split", "method"),
        ("os.getcwd", "function"),
        ("textwrap", "module"),
    ]:
        assert documents[title].metadata["kind"] == kind
    topics = [d for d in documents.values() if d.metadata["kind"] == "topic"]
    assert len(topics) > 60
    assert max(len(d.text) for d in topics) > 20_000


def test_unknown_sources_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no such file or folder"):
        FileSource(tmp_path / "nothing")
    with pytest.raises(InvalidInputError, match="unknown format; received 'word'"):
        FileSource(tmp_path, format="word")
    with pytest.raises(InvalidInputError, match="unknown encoding; received 'klingon'"):
        FileSource(tmp_path, encoding="klingon")


@pytest.mark.parametrize("line", [b'{"id": "a", "text": "x"}\n', b"\x00" * 2**20])
def test_a_file_that_unpacks_without_end_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: bytes
) -> None:
    monkeypatch.setattr("hyblink.indexer.readers.rows._BOMB_BYTES", 2**20)
    monkeypatch.setattr("hyblink.indexer.readers.rows._BOMB_RATIO", 200)
    path, size = tmp_path / "bomb.jsonl.gz", 24 * 2**20
    path.write_bytes(gzip.compress(line * (size // len(line))))
    items = [item for item in FileSource(path).items() if item.is_row]
    assert items[-1].error is not None
    assert "unpack to more than" in str(items[-1].error)
    assert sum(item.document is not None for item in items) * len(line) <= 200 * path.stat().st_size


def test_a_file_of_ordinary_rows_packs_well_and_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hyblink.indexer.readers.rows._BOMB_BYTES", 2**16)
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(b"".join(b'{"id": "%d", "text": "the same words"}\n' % n for n in range(20_000))))
    items = [item for item in FileSource(path).items() if item.is_row]
    assert len(items) == 20_000
    assert all(item.document is not None for item in items)


def test_lines_that_end_with_a_carriage_return_alone(tmp_path: Path) -> None:
    for number, encoding in enumerate(["utf-8", "utf-16", "cp1252"]):
        path = tmp_path / f"{number}.csv"
        path.write_bytes("id;text\ra;größer, überall\rb;two\r".encode(encoding))
        found = {item.document.id: item.document.text for item in FileSource(path).items() if item.document}
        assert found == {"a": "größer, überall", "b": "two"}, encoding
    mixed = tmp_path / "mixed.csv"
    mixed.write_bytes(b"id,text\na,one \r two\nb,three\n")
    assert {item.document.id for item in FileSource(mixed).items() if item.document} >= {"b"}


def test_a_reader_that_fails_does_not_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: Path, options: object) -> Iterator[Row]:
        yield Row(1, 1, {"id": "first", "text": "x"})
        raise RuntimeError("a fault of the reader")

    original = FORMATS.of
    row = replace(original("csv"), rows=broken)
    monkeypatch.setattr(FORMATS, "of", lambda name: row if name == "csv" else original(name))
    (tmp_path / "a.csv").write_text("id,text\n1,x")
    (tmp_path / "b.txt").write_text("words")
    items = list(FileSource(tmp_path).items())
    assert [item.document.id for item in items if item.document] == ["first", "b.txt"]
    assert "RuntimeError: a fault of the reader" in str(next(item.error for item in items if item.error))
