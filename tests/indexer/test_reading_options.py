"""Options of reading: rows of workbooks, pages as a whole, text in pictures, ids that two sources share."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.services import missing_service

from hyblink.app.application import App
from hyblink.app.core.errors import InvalidInputError
from hyblink.app.core.types.documents import Document
from hyblink.app.operations.ingestion import Ingested, ingest_source
from hyblink.app.operations.sources import named
from hyblink.indexer.readers.files import FileSource


def read(path: Path, **options: Any) -> dict[str, Document]:
    return {item.document.id: item.document for item in FileSource(path, **options).items() if item.document}


def skipped(path: Path, **options: Any) -> dict[str, str]:
    return {item.file: item.why for item in FileSource(path, **options).items() if item.outcome == "skipped"}


def workbook(path: Path) -> None:
    from openpyxl import Workbook

    book = Workbook()
    prices = book.active
    prices.title = "Prices"
    for row in (["id", "name", "description", "price", "zip"], ["p1", "Drill", "It drills, well", 12.5, "01234"], [],
                ["p2", "Saw", "It saws", 7, "99999"]):  # fmt: skip
        prices.append(row)
    notes = book.create_sheet("Notes 2024")
    notes.append(["text", "day"])
    notes.append(["first note", "2024-05-01"])
    book.create_sheet("Empty")
    book.save(path)


def test_rows_of_a_workbook(tmp_path: Path) -> None:
    workbook(tmp_path / "shop.xlsx")
    assert list(read(tmp_path)) == ["shop.xlsx"]
    found = read(tmp_path, rows=True)
    assert set(found) == {"p1", "p2", "shop.xlsx/Notes 2024.csv:1"}
    assert (found["p1"].title, found["p1"].text) == ("Drill", "It drills, well")
    assert {key: found["p1"].metadata[key] for key in ("price", "zip")} == {"price": 12.5, "zip": "01234"}
    assert found["p2"].metadata["price"] == 7
    assert found["shop.xlsx/Notes 2024.csv:1"].metadata["day"] == "2024-05-01"


@pytest.mark.parametrize("suffix", [".ods", ".xls"])
def test_rows_of_other_workbooks(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"shop{suffix}"
    if suffix == ".xls":
        import xlwt

        book = xlwt.Workbook()
        sheet = book.add_sheet("Prices")
        for row, cells in enumerate([["id", "text"], ["a", "one"], ["b", "two"]]):
            for column, cell in enumerate(cells):
                sheet.write(row, column, cell)
        book.save(str(path))
    else:
        from support.reader_files import zipped

        cells = "".join(
            "<table:table-row>" + "".join(f"<table:table-cell><text:p>{c}</text:p></table:table-cell>" for c in row)
            + "</table:table-row>" for row in (["id", "text"], ["a", "one"], ["b", "two"])
        )  # fmt: skip
        names = "".join(
            f' xmlns:{n}="urn:oasis:names:tc:opendocument:xmlns:{n}:1.0"' for n in ("office", "table", "text")
        )
        content = (
            f"<office:document-content{names}><office:body><office:spreadsheet><table:table table:name='Prices'>{cells}"
            "</table:table></office:spreadsheet></office:body></office:document-content>"
        )
        path.write_bytes(zipped({"mimetype": "application/vnd.oasis.opendocument.spreadsheet", "content.xml": content}))
    assert {name: one.text for name, one in read(path, rows=True).items()} == {"a": "one", "b": "two"}


def test_pages_with_their_boilerplate(tmp_path: Path) -> None:
    page = "<nav>Home Imprint</nav><main><h1>Title</h1><p>" + "The content of the page. " * 20 + "</main><footer>Cookie"
    (tmp_path / "a.html").write_text(page)
    assert "Imprint" not in read(tmp_path)["a.html"].text
    assert "Home Imprint" in read(tmp_path, keep_boilerplate=True)["a.html"].text


def ingested(app: App, folder: Path, **options: Any) -> Ingested:
    own = named(app, "c", folder)
    return ingest_source(app, FileSource(folder, prefix=own.prefix, name=own.name, **options), "c", wait=False)


def test_the_same_row_id_of_two_sources(make_app: Callable[..., App], tmp_path: Path) -> None:
    app = make_app()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rows.jsonl").write_text(
            f'{{"id": "r1", "text": "of {name}"}}\n{{"id": "{name}", "text": "x"}}'
        )
    ingested(app, tmp_path / "one")
    done = ingested(app, tmp_path / "two")
    assert (done.report.created, done.report.rejected) == (1, 1)
    assert "the id 'r1' is that of a document of the source 'one'; --prefix-ids keeps both" in done.report.rejects[0]
    assert app.documents.get("c", "r1").text == "of one"
    # A new version of a source's own row is no conflict.
    (tmp_path / "one" / "rows.jsonl").write_text('{"id": "r1", "text": "new"}')
    assert ingested(app, tmp_path / "one").report.updated == 1
    both = ingested(app, tmp_path / "two", prefix_ids=True)
    assert (both.report.created, both.report.rejected) == (2, 0)
    assert app.documents.get("c", "two/r1").text == "of two"


def test_pictures_are_told_and_ocr_needs_its_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n\x00")
    assert skipped(tmp_path) == {"a.png": "a picture; --ocr reads the text in it"}
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InvalidInputError, match="needs Tesseract, which is not installed"):
        FileSource(tmp_path, ocr=True)


@pytest.mark.services
def test_scans_are_read_by_tesseract(tmp_path: Path) -> None:
    from PIL import Image, ImageDraw, ImageFont

    if shutil.which("tesseract") is None:
        missing_service("tesseract")
    pages = []
    for words in ("The turbine was\nserviced in May.", "Second page about\nthe oil pump."):
        page = Image.new("L", (1240, 600), 255)
        ImageDraw.Draw(page).text((80, 100), words, font=ImageFont.load_default(60), fill=0)
        pages.append(page)
    pages[0].save(tmp_path / "scan.pdf", save_all=True, append_images=pages[1:], resolution=150)
    pages[1].save(tmp_path / "photo.png")
    (tmp_path / "broken.jpg").write_bytes(b"no picture at all")
    assert skipped(tmp_path)["scan.pdf"] == "no text (a scan); --ocr reads it"
    found = read(tmp_path, ocr=True)
    assert set(found) == {"scan.pdf", "photo.png"}
    scan = found["scan.pdf"]
    assert "turbine was" in scan.text
    assert [section.place for section in scan.sections] == ["page 1", "page 2"]
    assert "oil pump" in scan.text[scan.sections[1].start :]
    assert scan.metadata["ocr"] == 2
    assert "oil pump" in found["photo.png"].text
    assert "broken.jpg" in {item.file for item in FileSource(tmp_path, ocr=True).items() if item.error}
    with_text = Path(__file__).parents[1] / "data" / "cases" / "pdf" / "hyphen.pdf"
    plain, same = read(with_text)["hyphen.pdf"], read(with_text, ocr=True)["hyphen.pdf"]
    assert same == plain


@pytest.mark.parametrize(
    ("content", "ids"),
    [
        ('{"id": "a", "text": "x"}\n{"id": "b", "text": "y"}\n', {"a", "b"}),
        ('\ufeff{"id": "a", "text": "x"}', {"a"}),
        ('[\n {"id": "a", "text": "x"}, {"id": "b", "text": "y"}\n]', {"a", "b"}),
        ("[1] A note, not JSON", {"export"}),
        ("{ braces } in a text", {"export"}),
    ],
)
def test_json_without_a_suffix(tmp_path: Path, content: str, ids: set[str]) -> None:
    (tmp_path / "export").write_text(content)
    assert set(read(tmp_path)) == ids
