"""Word, PowerPoint, Excel and OpenDocument files: text, titles, sections, and what is refused."""

from __future__ import annotations

import contextlib
import datetime
import io
import zipfile
from collections.abc import Callable

import pytest
from support.reader_files import BOMB, check, parts_of, saved, zipped

from hyblink.app.core.errors import InvalidInputError
from hyblink.indexer.readers.format import WholeFile
from hyblink.indexer.readers.office import read_docx, read_pptx
from hyblink.indexer.readers.opendocument import read_odf
from hyblink.indexer.readers.sheets import read_xls, read_xlsx

Read = Callable[[bytes], WholeFile]

ODF = (
    'xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0" xmlns:xlink="http://www.w3.org/1999/xlink" '
    'xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0" xmlns:dc="http://purl.org/dc/elements/1.1/" '
    'xmlns:table="urn:oasis:names:tc:opendocument:xmlns:table:1.0" xmlns:meta="urn:oasis:names:tc:opendocument:xmlns:meta:1.0" '
    'xmlns:draw="urn:oasis:names:tc:opendocument:xmlns:drawing:1.0" xmlns:presentation="urn:oasis:names:tc:opendocument:xmlns:presentation:1.0"'
)


def docx() -> bytes:
    import docx as library

    document = library.Document()
    document.core_properties.title = "Microsoft Word - lease.doc"
    document.core_properties.author = "Ada"
    document.core_properties.created = datetime.datetime.fromisoformat("2024-03-01T10:00")
    document.core_properties.keywords = "lease; rent"
    document.add_paragraph("Lease of the mill", style="Title")
    document.add_paragraph("Between us.")
    document.add_heading("Rent", 1)
    document.add_paragraph("Due monthly.")
    table = document.add_table(rows=2, cols=2)
    for cell, text in zip(
        (cell for row in table.rows for cell in row.cells), ["item", "price", "flat", "900"], strict=True
    ):
        cell.text = text
    document.add_paragraph("After the table.")
    document.add_heading("Deposit", 2)
    document.add_paragraph("cash", style="List Bullet")
    document.add_paragraph("bank", style="List Bullet")
    document.add_heading("End", 1)
    document.add_paragraph("Signed\tby\nboth.")
    document.sections[0].header.paragraphs[0].text = "HEADER"
    return saved(document)


def pptx() -> bytes:
    import pptx as library
    from pptx.util import Inches

    deck = library.Presentation()
    first = deck.slides.add_slide(deck.slide_layouts[1])
    first.shapes.title.text, first.placeholders[1].text = "Roadmap", "Ship beta\nThen rest"
    first.notes_slide.notes_text_frame.text = "Say it slowly"
    second = deck.slides.add_slide(deck.slide_layouts[6])
    group = second.shapes.add_group_shape()
    group.shapes.add_textbox(0, 0, Inches(1), Inches(1)).text_frame.text = "In a group"
    table = second.shapes.add_table(1, 2, 0, 0, Inches(2), Inches(1)).table
    table.cell(0, 0).text, table.cell(0, 1).text = "a", "b"
    return saved(deck)


def xlsx() -> bytes:
    import openpyxl

    book = openpyxl.Workbook()
    book.properties.title = "Stock"
    sheet = book.active
    assert sheet is not None
    sheet.title = "Prices"
    for row in (
        ["item", "price", "on", "share"],
        ["bolt", 129.90000000000001, datetime.datetime.fromisoformat("2024-03-01"), 0.125],
        [],
        ["nut", 3.0, datetime.datetime.fromisoformat("2024-03-01T14:30"), True],
    ):
        sheet.append(row)
    sheet["D2"].number_format = "0.0%"
    sheet["XFD9"] = "far"
    hidden = book.create_sheet("Sheet2")
    hidden.sheet_state = "hidden"
    hidden["B3"] = "secret\nline"
    book.create_sheet("Empty")
    return saved(book)


def xls() -> bytes:
    import xlwt  # type: ignore[import-untyped]

    book = xlwt.Workbook()
    sheet = book.add_sheet("Prices")
    date = xlwt.easyxf(num_format_str="YYYY-MM-DD")
    for row, cells in enumerate((["item", "price"], ["bolt", 129.90000000000001], ["nut", 3])):
        for column, cell in enumerate(cells):
            sheet.write(row, column, cell)
    sheet.write(4, 0, datetime.date(2024, 3, 1), date)
    sheet.write(4, 1, True)
    return saved(book)


def odf(body: str, meta: str = "", manifest: str = "<x/>", declared: str = "") -> bytes:
    return zipped(
        {
            "content.xml": f'<?xml version="1.0"?>{declared}<office:document-content {ODF}><office:body>{body}</office:body></office:document-content>',
            "meta.xml": f"<office:document-meta {ODF}><office:meta>{meta}</office:meta></office:document-meta>",
            "META-INF/manifest.xml": manifest,
        }
    )


def test_word() -> None:
    file = read_docx(docx())
    assert file.title == "Lease of the mill"
    assert file.text == (
        "Lease of the mill\n\nBetween us.\n\nRent\n\nDue monthly.\n\nitem | price\nflat | 900\n\nAfter the table.\n\n"
        "Deposit\n\n- cash\n- bank\n\nEnd\n\nSigned\tby\nboth."
    )
    assert check(file) == [
        ("", "Lease of the mill", "Lease of the mill"),
        ("", "Lease of the mill > Rent", "Rent"),
        ("", "Lease of the mill > Rent > Deposit", "Deposit"),
        ("", "Lease of the mill > End", "End"),
    ]
    assert file.metadata == {"author": "Ada", "created": "2024-03-01", "keywords": ["lease", "rent"]}


def test_word_notes_boxes_and_changes() -> None:
    parts = parts_of(docx())
    w = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
    parts["word/document.xml"] = (
        f'<w:document {w} xmlns:mc="urn:mc"><w:body><w:sdt><w:sdtContent><w:p><w:r><w:t>One</w:t></w:r>'
        "<w:del><w:r><w:delText>gone</w:delText><w:t>gone</w:t></w:r></w:del><w:ins><w:r><w:t> new</w:t></w:r></w:ins>"
        '<w:r><w:footnoteReference w:id="2"/></w:r></w:p></w:sdtContent></w:sdt><w:p><w:r><mc:AlternateContent><mc:Choice>'
        "<w:txbxContent><w:p><w:r><w:t>Box</w:t></w:r></w:p></w:txbxContent></mc:Choice><mc:Fallback><w:txbxContent><w:p>"
        "<w:r><w:t>Box</w:t></w:r></w:p></w:txbxContent></mc:Fallback></mc:AlternateContent><w:t>Two</w:t></w:r></w:p>"
        '<w:p><w:pPr><w:outlineLvl w:val="1"/></w:pPr><w:r><w:t>Überschrift</w:t></w:r></w:p></w:body></w:document>'
    )
    rels = "word/_rels/document.xml.rels"
    found = parts[rels]
    assert isinstance(found, bytes)
    parts[rels] = found.replace(
        b"</Relationships>",
        b'<Relationship Id="n" Type="x/footnotes" Target="footnotes.xml"/><Relationship Id="e" Type="x/footnotes" TargetMode="External" Target="http://127.0.0.1:9/x"/></Relationships>',
    )
    parts["word/footnotes.xml"] = (
        f'<w:footnotes {w}><w:footnote w:id="2"><w:p><w:r><w:t>The note</w:t><w:footnoteReference w:id="2"/></w:r></w:p></w:footnote></w:footnotes>'
    )
    file = read_docx(zipped(parts))
    assert file.text == "One new\n\nThe note\n\nTwo\n\nBox\n\nÜberschrift"
    assert check(file) == [("", "", "One new"), ("", "Überschrift", "Überschrift")]


def test_slides() -> None:
    file = read_pptx(pptx())
    assert file.title == "Roadmap"
    assert file.text == "Roadmap\n\nShip beta\nThen rest\n\nSay it slowly\n\nIn a group\n\na | b"
    assert check(file) == [("slide 1", "Roadmap", "Roadmap"), ("slide 2", "", "In a group")]


def test_workbook() -> None:
    file = read_xlsx(xlsx())
    assert file.text == (
        "Prices\n\nitem | price | on | share\nbolt | 129.9 | 2024-03-01 | 12.5%\nnut | 3 | 2024-03-01T14:30:00 | TRUE\n"
        + " | " * 20
        + "far"
        "\n\nsecret line"
    )
    assert check(file) == [("sheet Prices", "Prices", "Prices"), ("sheet Sheet2", "", "secret line")]
    assert file.title == "Stock"


def test_old_workbook() -> None:
    file = read_xls(xls())
    assert file.text == "Prices\n\nitem | price\nbolt | 129.9\nnut | 3\n2024-03-01 | TRUE"
    assert check(file) == [("sheet Prices", "Prices", "Prices")]
    assert read_xls(xlsx()).title == "Stock"


def test_opendocument_text() -> None:
    file = read_odf(
        odf(
            '<office:text><text:table-of-content><text:p>TOC</text:p></text:table-of-content><text:h text:outline-level="1">Top</text:h><text:p>a<text:s text:c="2"/>b<text:tab/>c<text:line-break/>d'
            "<text:note><text:note-citation>1</text:note-citation><text:note-body><text:p>noted</text:p></text:note-body></text:note></text:p><text:list><text:list-item><text:p>x</text:p></text:list-item><text:list-item><text:p>y</text:p></text:list-item></text:list>"
            "<table:table><table:table-row><table:table-cell><text:p>1</text:p></table:table-cell><table:table-cell><text:p>2</text:p></table:table-cell></table:table-row></table:table>"
            '<text:h text:outline-level="2">Sub</text:h><text:p>z<office:annotation><text:p>comment</text:p></office:annotation></text:p></office:text>',
            "<dc:title>Paper</dc:title><dc:creator>Bo</dc:creator><meta:initial-creator>Ada</meta:initial-creator><meta:keyword>k</meta:keyword><meta:creation-date>2024-01-02T03:04:05</meta:creation-date>",
        )
    )
    assert file.text == "Top\n\na  b\tc\nd\n\nnoted\n\n- x\n- y\n\n1 | 2\n\nSub\n\nz"
    assert check(file) == [("", "Top", "Top"), ("", "Top > Sub", "Sub")]
    assert (file.title, file.metadata) == ("Paper", {"author": "Ada", "keywords": ["k"], "created": "2024-01-02"})


def test_opendocument_slides_and_sheets() -> None:
    slides = read_odf(
        odf(
            '<office:presentation><draw:page><draw:frame presentation:class="title"><draw:text-box><text:p>Plan</text:p></draw:text-box></draw:frame><draw:frame><draw:text-box><text:p>Do it</text:p></draw:text-box></draw:frame>'
            '<presentation:notes><draw:frame presentation:class="notes"><draw:text-box><text:p>softly</text:p></draw:text-box></draw:frame></presentation:notes></draw:page></office:presentation>'
        )
    )
    assert (slides.title, slides.text, check(slides)) == (
        "Plan",
        "Plan\n\nDo it\n\nsoftly",
        [("slide 1", "Plan", "Plan")],
    )
    cell = '<table:table-cell office:value-type="float" office:value="{}"><text:p>shown</text:p></table:table-cell>'
    many = 'table:number-rows-repeated="1048576"'
    sheets = read_odf(
        odf(
            f'<office:spreadsheet><table:table table:name="Costs"><table:table-row>{cell.format("129.90000000000001")}<table:table-cell table:number-columns-repeated="2"/>{cell.format("2")}<table:table-cell table:number-columns-repeated="16000"/></table:table-row>'
            f'<table:table-row {many}><table:table-cell table:number-columns-repeated="16384"/></table:table-row><table:table-row table:number-rows-repeated="2"><table:table-cell office:value-type="date" office:date-value="2024-03-01"><text:p>1.3.</text:p></table:table-cell></table:table-row></table:table></office:spreadsheet>'
        )
    )
    assert sheets.text == "Costs\n\n129.9 |  |  | 2\n2024-03-01\n2024-03-01"
    assert check(sheets) == [("sheet Costs", "Costs", "Costs")]


def test_flat_opendocument() -> None:
    source = f"<office:document {ODF}><office:meta><dc:title>Flat</dc:title></office:meta><office:body><office:text><text:p>one</text:p></office:text></office:body></office:document>"
    assert (read_odf(source.encode()).title, read_odf(source.encode()).text) == ("Flat", "one")


PLAIN = [(read_docx, docx), (read_pptx, pptx), (read_xlsx, xlsx), (read_odf, lambda: odf("<office:text><text:p>x</text:p></office:text>")), (read_xls, xls)]  # fmt: skip


@pytest.mark.parametrize(("read", "make"), PLAIN)
def test_broken_files_are_refused(read: Read, make: Callable[[], bytes]) -> None:
    data = make()
    ole = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600) + "EncryptedPackage".encode("utf-16-le")
    for bad in (b"", b"PK\x03\x04", b"no such thing", data[: len(data) // 2], zipped({"a": "b"}), ole):
        with pytest.raises(InvalidInputError):
            read(bad)
    for at in range(0, len(data), max(1, len(data) // 60)):  # any byte may be wrong
        with contextlib.suppress(InvalidInputError):
            check(read(data[:at] + bytes([data[at] ^ 0x5A]) + data[at + 1 :]))


@pytest.mark.parametrize(("read", "make"), PLAIN[:4])
def test_bombs_and_locks_are_refused(read: Read, make: Callable[[], bytes]) -> None:
    out = io.BytesIO(make())
    with zipfile.ZipFile(out, "a", zipfile.ZIP_DEFLATED) as archive, archive.open("bomb.xml", "w") as entry:
        for _ in range(70):
            entry.write(bytes(1 << 20))
    with pytest.raises(InvalidInputError, match="bomb"):
        read(out.getvalue())
    data = bytearray(make())
    at = data.index(b"PK\x01\x02")
    data[at + 8] |= 1
    with pytest.raises(InvalidInputError, match="encrypted"):
        read(bytes(data))


@pytest.mark.parametrize("text", ["&c;", "&f;", "&u;"])
def test_entities_are_not_resolved(text: str) -> None:
    with pytest.raises(InvalidInputError):
        read_odf(odf(f"<office:text><text:p>{text}</text:p></office:text>", declared=BOMB))
    parts = parts_of(xlsx())
    parts["xl/worksheets/sheet1.xml"] = (
        f'{BOMB}<worksheet xmlns="u"><sheetData><row><c t="str"><v>v{text}</v></c></row></sheetData></worksheet>'
    )
    assert len(read_xlsx(zipped(parts)).text) < 40
    parts = parts_of(docx())
    parts["word/document.xml"] = (
        f'{BOMB}<w:document xmlns:w="u"><w:body><w:p><w:r><w:t>{text}</w:t></w:r></w:p></w:body></w:document>'
    )
    with pytest.raises(InvalidInputError):
        read_docx(zipped(parts))


def test_locked_opendocument() -> None:
    with pytest.raises(InvalidInputError, match="encrypted"):
        read_odf(odf("<office:text/>", manifest="<m><encryption-data/></m>"))


def test_files_without_text() -> None:
    import docx as library
    import openpyxl

    assert read_docx(saved(library.Document())).text == ""
    assert read_xlsx(saved(openpyxl.Workbook())).text == ""
    assert read_odf(odf("<office:text/>")).text == ""
