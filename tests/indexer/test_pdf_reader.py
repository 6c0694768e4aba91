"""PDFs as people have them: columns, headers, broken words, outlines, locks, damage."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from support.growth import assert_linear

from hyblink.app.core.errors import InvalidInputError
from hyblink.app.core.types.documents import Section
from hyblink.indexer.readers.format import WholeFile
from hyblink.indexer.readers.pdf import read
from hyblink.indexer.readers.pdf_about import author_of, date_of, title_of

CASES = Path(__file__).parents[1] / "data" / "cases" / "pdf"
Text = tuple[float, float, str]


def made(
    pages: list[list[Text]], *, info: str = "", outline: Sequence[tuple[int, str]] = (), turn: str = "1 0 0 1",
    rotate: int = 0, size: int = 10,
) -> bytes:  # fmt: skip
    """A PDF with texts at places. `outline`: (page, title); `turn`: the matrix of the text."""
    objects: dict[int, bytes] = {3: b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>"}
    kids = []
    for number, texts in enumerate(pages):
        page, stream = 10 + 2 * number, 11 + 2 * number
        drawn = b"".join(f"BT /F {size} Tf {turn} {x} {y} Tm ({text}) Tj ET\n".encode("cp1252") for x, y, text in texts)
        objects[page] = (
            f"<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Rotate {rotate}/Contents {stream} 0 R"
            "/Resources<</Font<</F 3 0 R>>>>>>"
        ).encode()
        objects[stream] = b"<</Length %d>>stream\n%s\nendstream" % (len(drawn), drawn)
        kids.append(f"{page} 0 R")
    objects[2] = f"<</Type/Pages/Count {len(pages)}/Kids[{' '.join(kids)}]>>".encode()
    objects[4] = f"<<{info}>>".encode("latin-1")
    first = 10 + 2 * len(pages)
    for at, (page, title) in enumerate(outline):
        links = (f"/Next {first + at + 1} 0 R" if at + 1 < len(outline) else "") + (
            f"/Prev {first + at - 1} 0 R" if at else ""
        )
        objects[first + at] = f"<</Title({title})/Parent 5 0 R/Dest[{10 + 2 * page} 0 R/Fit]{links}>>".encode()
    marks = ""
    if outline:
        objects[5] = f"<</First {first} 0 R/Last {first + len(outline) - 1} 0 R/Count {len(outline)}>>".encode()
        marks = "/Outlines 5 0 R"
    objects[1] = f"<</Type/Catalog/Pages 2 0 R{marks}>>".encode()
    data, places = bytearray(b"%PDF-1.4\n"), {}
    for number, body in sorted(objects.items()):
        places[number] = len(data)
        data += b"%d 0 obj%s\nendobj\n" % (number, body)
    table = len(data)
    data += b"xref\n0 1\n0000000000 65535 f \n"
    for number, place in places.items():
        data += b"%d 1\n%010d 00000 n \n" % (number, place)
    data += b"trailer<</Size %d/Root 1 0 R/Info 4 0 R>>\nstartxref\n%d\n%%%%EOF\n" % (max(objects) + 1, table)
    return bytes(data)


def paragraph(*lines: str, left: float = 72, top: float = 700) -> list[Text]:
    return [(left, top - 12 * number, line) for number, line in enumerate(lines)]


def case(name: str) -> WholeFile:
    return read((CASES / name).read_bytes())


def words(data: bytes) -> str:
    return " ".join(read(data).text.split())


def test_ligatures_are_letters() -> None:
    assert case("ligature.pdf").text == "The office staff filed the floor plan and the efficiency report."


def test_broken_words_are_joined_and_pages_are_sections() -> None:
    found = case("hyphen.pdf")
    assert found.text == (
        "The municipal water authority requires a thorough inspection\nof every backflow preventer\n"
        "once a year. Self-service\nmeters are read monthly.\n\nSecond page about turbine maintenance."
    )
    assert found.sections == (Section(0, (), "page 1"), Section(141, (), "page 2"))
    assert found.text[141:].startswith("Second page")
    assert found.metadata == {"pages": 2, "created": "2026-11-29"}


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        (("a long-", "term plan"), "a long-term plan"),
        (("the high-", "lights of it"), "the highlights of it"),
        (("pre-", "and postwar years"), "pre- and postwar years"),
        (("a cost-", "benefit view. Is cost-benefit one?"), "a cost-benefit view. Is cost-benefit one?"),
        (("a data-", "base. A database"), "a database. A database"),
        (("Jean-", "Pierre and COVID-", "19 came"), "Jean-Pierre and COVID-19 came"),
        (("the state-of-the-", "art pump"), "the state-of-the-art pump"),
        (("WE DO NOT DIS-", "CLAIM ANYTHING HERE"), "WE DO NOT DISCLAIM ANYTHING HERE"),
        (("it is so -", "and not otherwise"), "it is so - and not otherwise"),
    ],
)
def test_hyphens_at_the_end_of_lines(lines: tuple[str, ...], wanted: str) -> None:
    assert words(made([paragraph(*lines)])) == wanted


def test_a_word_broken_over_two_pages_is_joined() -> None:
    assert read(made([paragraph("of great impor-"), *[paragraph("tance to all")]])).text == (
        "of great importance\n\nto all"
    )


def test_columns_are_read_one_after_the_other() -> None:
    assert " ".join(case("columns.pdf").text.split()) == (
        "Left column begins with honey bees, which live in hives and make wax. The queen lays eggs all summer long. "
        "Right column is about granite quarries, where stone is cut by wire saws and polished for kitchen tops."
    )


def test_lines_over_both_columns_part_them() -> None:
    left = paragraph("the first column has", "some words of prose", "that go on and on", "to its very end")
    right = paragraph(
        "the second column is", "beside it and has as", "many lines as that", "and ends as well", left=320
    )
    title = [(72.0, 730.0, "A title that stands over both of the columns, from one side to the other side")]
    end = [(72.0, 600.0, "A note that stands under both of the columns, from one side to the other side")]
    across = [piece for pair in zip(left, right, strict=True) for piece in pair]
    assert words(made([title + across + end])) == " ".join(text for _, _, text in [*title, *left, *right, *end])


def test_rows_of_a_table_are_read_across() -> None:
    rows = [("Bearing, small", "12.50"), ("Bearing, large", "17.00"), ("Shaft of steel", "99.00"), ("Oil", "3.10")]
    texts = [(x, 700 - 12 * at, row[x == 320]) for at, row in enumerate(rows) for x in (72, 320)]
    assert read(made([texts])).text.split("\n") == [" ".join(row) for row in rows]


def test_what_repeats_at_the_edges_is_dropped() -> None:
    found = case("headers.pdf")
    assert found.text == "Alpha valves leak.\n\nBeta pumps rattle.\n\nGamma hoses burst."
    assert [section.place for section in found.sections] == ["page 1", "page 2", "page 3"]


def test_what_does_not_repeat_at_the_edges_is_kept() -> None:
    pages = [
        [(72.0, 780.0, f"Invoice {number}"), *paragraph("You owe us money.", top=600)] for number in (4711, 23, 815)
    ]
    assert read(made(pages)).text.count("Invoice") == 3
    alone = [[(72.0, 780.0, "Only this")] for _ in range(3)]
    assert "Only this" in read(made(alone)).text
    assert "You owe us money." in read(made(pages)).text  # it repeats, but not at an edge


@pytest.mark.parametrize(("turn", "rotate"), [("0 1 -1 0", 90), ("0 -1 1 0", 270), ("-1 0 0 -1", 180)])
def test_turned_pages_are_read(turn: str, rotate: int) -> None:
    second = {90: (312.0, 300.0), 270: (288.0, 300.0), 180: (300.0, 312.0)}[rotate]
    texts = [(*second, "second line"), (300.0, 300.0, "first line")]
    assert read(made([texts], turn=turn, rotate=rotate)).text == "first line\nsecond line"


def test_the_outline_gives_the_paths() -> None:
    pages = [
        paragraph("Preface of it"),
        paragraph("end of the preface", "1 Pumps", "They pump."),
        paragraph("More of pumps."),
    ]
    found = read(made(pages, outline=[(1, "Pumps")]))
    assert [(s.path, s.place, found.text[s.start :][:8]) for s in found.sections] == [
        ((), "page 1", "Preface "), ((), "page 2", "end of t"), (("Pumps",), "page 2", "1 Pumps\n"),
        (("Pumps",), "page 3", "More of "),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "title",
    [
        "untitled", "Untitled-1", "Microsoft Word - final_v3(2).doc", "Microsoft Word - Report", "report.docx",
        "book_v2.indd", "Slide 1", "Folie 1", "PowerPoint Presentation", "PowerPoint-Präsentation", "42", "", "  ",
        "C:\\Users\\me\\x", "/home/me/report", "file:///x", "Document1", "Scan 2024-03",
    ],
)  # fmt: skip
def test_titles_that_are_none(title: str) -> None:
    assert title_of(title) == ""


def test_titles_authors_and_dates() -> None:
    for title in ("Annual report", "Slides of the talk", "1984", "Document retention policy", "Book of pumps"):
        assert title_of(title) == ("" if title.isdigit() else title)
    assert [author_of(name) for name in ("Ann Lee", "anonymous", "Administrator", "user1", "")] == [
        "Ann Lee",
        *[""] * 4,
    ]
    dates = {
        "D:20240131120000+01'00'": "2024-01-31",
        "D:2024": "2024-01-01",
        "D:19700101": "",
        "D:20241399": "",
        "x": "",
    }
    assert {told: date_of(told) for told in dates} == dates
    about = read(made([paragraph("Text")], info="/Title(Pumps)/Author(Ann Lee)/CreationDate(D:20240131)"))
    assert (about.title, about.metadata) == ("Pumps", {"pages": 1, "author": "Ann Lee", "created": "2024-01-31"})


def test_a_scan_has_pages_and_no_text() -> None:
    found = case("scan_2024_03.pdf")
    assert (found.text, found.metadata["pages"], found.sections) == ("", 1, ())


def test_locked_files_are_named_so() -> None:
    with pytest.raises(InvalidInputError, match="encrypted"):
        case("locked.pdf")


def test_no_part_of_a_file_is_taken_for_the_whole() -> None:
    with pytest.raises(InvalidInputError, match="the PDF cannot be read"):
        case("truncated.pdf")
    whole = (CASES / "hyphen.pdf").read_bytes()
    wanted = read(whole).text
    for end in range(0, len(whole), 7):
        try:
            assert read(whole[:end]).text == wanted
        except InvalidInputError as error:
            assert str(error).startswith("the PDF cannot be read: ")  # noqa: PT017


def test_time_is_linear_in_the_pages_and_in_a_page() -> None:
    def pdf(pages: int, lines: int) -> bytes:
        return made([[(72, 790 - 0.05 * at, f"word{at} and more-") for at in range(lines)] for _ in range(pages)])

    read(pdf(1, 10))
    assert_linear(read, pdf(10, 100), pdf(40, 100), 4)
    assert_linear(read, pdf(1, 1000), pdf(1, 4000), 4)
