"""HTML pages as people have them: menus and banners, tables, odd encodings, hidden text, XHTML."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.growth import assert_linear

from hyblink.app.core.types.documents import Section
from hyblink.indexer.readers.format import WholeFile
from hyblink.indexer.readers.html import html_text, read, read_everything

CASES = Path(__file__).parents[1] / "data" / "cases" / "html"
PROSE = "Real sentences about the pump and its many valves, which leak. " * 3
P = f"<p>{PROSE}</p>"


def case(name: str) -> WholeFile:
    return read((CASES / name).read_bytes())


def text(page: str) -> str:
    return read(page.encode()).text


def test_a_page_of_documentation_is_its_main_content() -> None:
    found = case("docs.html")
    assert found == WholeFile(
        "Install",
        "Install\nRun pip install frobnicator on Linux.\nOS | Ver\nLinux | 5.4\ndef frob(x):\n    return x\ndiagram of the pump",
        {"description": "How to install", "lang": "en"},
        (Section(0, ("Install",), "#install"),),
    )
    everything = read_everything((CASES / "docs.html").read_bytes()).text
    for words in ("API reference", "Accept all cookies", "All rights reserved", "pip install"):
        assert words in everything
    for words in ("hidden text trick", "aria hidden", "tracking", "¶"):
        assert words not in everything


def test_words_are_not_glued() -> None:
    assert case("glue.html").text == (
        "Fruit\nApple\nPear\nSerial number\nZX81\nWeight\n7kg\nTotal 99 EUR\nquoted\npara"
    )


def test_encodings_of_the_cases() -> None:
    assert (case("cp1251.html").title, case("cp1251.html").text) == (
        "Погода", "Завтра ожидается сильный дождь в Москве."
    )  # fmt: skip
    assert (case("latin1.html").title, case("latin1.html").text) == ("Café", "Crème brûlée à la carte")


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        ("<p>é".encode("utf-16"), "é"),
        ("<p>é and longer text".encode("utf-16-le"), "é and longer text"),
        ("<p>naïve café".encode(), "naïve café"),
        ("\ufeff<meta charset=latin1><p>naïve".encode(), "naïve"),
        ("<p>Müller und Söhne, Grüße aus Köln".encode("latin1"), "Müller und Söhne, Grüße aus Köln"),
        ("<meta charset=utf-8><p>Müller und Söhne, Grüße aus Köln".encode("latin1"), "Müller und Söhne, Grüße aus Köln"),
        ("<meta charset=iso-8859-1><p>“x” 5€".encode("cp1252"), "“x” 5€"),
        ("<meta charset='Shift_JIS'><p>日本語①".encode("cp932"), "日本語①"),
        ("<meta charset=gb2312><p>中文〇".encode("gb18030"), "中文〇"),
        ("<meta charset=utf-16><p>é".encode(), "é"),
        ("<meta charset=bogus><p>é".encode(), "é"),
        ("<meta charset=base64><p>é".encode(), "é"),
        ("<meta charset=iso-8859-1><p>éèàüöäß".encode(), "éèàüöäß"),
        ('<?xml version="1.0" encoding="iso-8859-2"?><p>łódź'.encode("iso-8859-2"), "łódź"),
        ("Привет мир, это длинный текст, о кодировке которого ничего не сказано".encode("cp1251"),
         "Привет мир, это длинный текст, о кодировке которого ничего не сказано"),
    ],
)  # fmt: skip
def test_encodings(data: bytes, wanted: str) -> None:
    assert read(data).text == wanted


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xfe", b"\0" * 50, bytes(range(256)) * 3, b"<", b"<!--", b"<html><frameset>"]
)
def test_no_bytes_are_too_odd(data: bytes) -> None:
    assert isinstance(read(data).text, str)
    assert "\0" not in read(data).text


@pytest.mark.parametrize(
    ("page", "wanted"),
    [
        ("<p>a<b>b</b>c <i>d</i>e<br>f</p><p>x<span>y</span></p>", "abc de\nf\nxy"),
        ("<p>H<sub>2</sub>O<wbr>x &amp; fine&shy;ly&nbsp;so", "H2Ox & finely so"),
        ("<table><tr><td>A<td></td><td>B<br>C</td></tr><tr><td>1</td><td><p>2</p><p>3</p></td></tr></table>after",
         "A | B C\n1 | 2 3\nafter"),
        ("<table><tr><td><ul><li>n</ul></td><td><h2>T</h2><p>B<table><tr><td>x</td><td>y</table></table>", "n\n\nT\nB\nx | y"),
        ("<pre>a\n  b\n\nc</pre>d", "a\n  b\n\nc\nd"),
        ("<ul><li><p>a</p></li><li>b<ol><li>c</ol></ul><dl><dt>t<dd>d</dl>", "a\nb\nc\nt\nd"),
        ("<p hidden>x<p style='Display : none'>y<p aria-hidden=true>z<p>seen", "seen"),
        ("<body style='display:none'><p>shown by a script", "shown by a script"),
        ("<script>if (a < b) x('<p>no</p>')</script><style>p{}</style><template>t</template>yes", "yes"),
    ],
)  # fmt: skip
def test_text(page: str, wanted: str) -> None:
    assert text(page) == wanted
    assert read_everything(page.encode()).text == wanted


@pytest.mark.parametrize(
    "boilerplate",
    [
        "<nav>Menu of the site</nav>", "<header><a href=/>Home page</a> Our slogan</header>", "<footer>Imprint</footer>",
        "<div class='cookie-banner'>We use cookies <button>Accept</button></div>", "<div id='CookieBox'>We use them</div>",
        "<div role=navigation>Menu</div>", "<div class='breadcrumbs'>Home &gt; Pumps</div>", "<aside>Other pages</aside>",
        "<ul class=menu>" + "<li><a href=x>An entry</a>" * 6 + "</ul>", "<div><a href=a>One</a>" + "<a href=b>Two</a>" * 9 + "</div>",
        "<nav>" + "<a href=x>An entry of a very large menu</a> " * 40 + "</nav>",
    ],
)  # fmt: skip
def test_boilerplate_is_dropped(boilerplate: str) -> None:
    assert text(f"<body class='has-sidebar'>{boilerplate}{P}") == PROSE.strip()
    assert text(f"<body>{P}{boilerplate}") == PROSE.strip()
    assert len(read_everything(f"{boilerplate}{P}".encode()).text) > len(PROSE)


@pytest.mark.parametrize(
    "page",
    [
        "<nav>All of the text</nav>", "<main></main><div>All of the text</div>", "<div class=sidebar>All of the text</div>",
        "<header><h1>All of the text</h1></header>", "<footer>All of the text</footer>",
        "<section id=cookies>All of the text</section>" + P, "<article><footer>All of the text</footer>" + P,
        "<div class='cookie policy'><h1>All of the text</h1>" + P + "</div>",
        "<header><h1>All of the text</h1><p>By me</p></header>" + P,
        "<h1>All of the text</h1><ul>" + "<li><a href=x>An entry</a>" * 9 + "</ul>",
        "<main><p>All of the text</p></main><nav>" + "<a href=x>An entry</a> " * 200 + "</nav>",
    ],
)  # fmt: skip
def test_text_is_not_lost(page: str) -> None:
    assert "All of the text" in text(page)


def test_a_short_main_content_is_enough() -> None:
    assert (
        text("<nav>" + "<a href=x>An entry</a> " * 50 + "</nav><main>The pump is broken.</main>")
        == "The pump is broken."
    )


def test_a_page_saved_with_an_open_dialog_is_read() -> None:
    assert "valves" in text(f"<div aria-hidden=true>{P * 3}</div><div role=dialog>Log in</div>")


def test_headings_are_sections() -> None:
    page = (
        "Before<section id=s1><h2>One</h2>x</section><a name=two></a><h2>Two</h2>y<h3>Sub <i>part</i></h3>z"
        "<h2 id=3>Three</h2><h2></h2><h1>Top<br>again</h1>"
    )
    found = read(page.encode())
    assert found.text == "Before\n\nOne\nx\n\nTwo\ny\n\nSub part\nz\n\nThree\n\nTop\nagain"
    assert [(s.path, s.place, found.text[s.start : s.start + 5].strip()) for s in found.sections] == [
        ((), "", "Befor"), (("One",), "#s1", "One\nx"), (("Two",), "#two", "Two\ny"), (("Two", "Sub part"), "", "Sub p"),
        (("Three",), "#3", "Three"), (("Top again",), "", "Top\na"),
    ]  # fmt: skip
    assert found.title == "Top again"


def test_titles() -> None:
    assert read(b"<title>T | Site</title><h1>One</h1>x").title == "One"
    assert read(b"<title>T | Site</title><h1>One</h1><h1>Two</h1>x").title == "T | Site"
    assert read(b"<meta property=og:title content=OG><svg><title>no</title></svg><p>x").title == "OG"
    assert read(b"<p>x").title == ""
    assert html_text("<title>T</title><h1>One</h1>") == ("T", "One")


def test_metadata() -> None:
    page = (
        '<html lang="en-GB"><meta property="article:published_time" content="2024-05-06T07:08:09Z">'
        '<meta name=author content="Ann Lee"><link rel=canonical href="https://e.org/x"><meta name=Description content=" a  b ">'
    )
    assert read((page + P).encode()).metadata == {
        "description": "a b", "author": "Ann Lee", "lang": "en-GB", "published": "2024-05-06", "url": "https://e.org/x",
    }  # fmt: skip
    assert read(b"<meta name=author content=''><link rel=canonical href='javascript:x'><p>x").metadata == {}


def test_xhtml() -> None:
    page = (
        '<?xml version="1.0" encoding="iso-8859-1"?><!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Strict//EN" "x">'
        '<html xmlns="http://www.w3.org/1999/xhtml" xml:lang="de"><head><title/><script src="x"/></head>'
        '<body><a id="k"/><h2>Käse</h2><p>A &amp; <![CDATA[b < c]]><br/>d</p></body></html>'
    )
    assert read(page.encode("latin1")) == WholeFile(
        "", "Käse\nA & b < c\nd", {"lang": "de"}, (Section(0, ("Käse",), "#k"),)
    )


@pytest.mark.parametrize(
    "pattern",
    ["<header>", "<div id=a><p>", "<table><tr><td>", "<h1>a", "<p class='cookie nav'>a", "<a href=#>¶</a>", "<pre>\n",
     "<header><h1>a</h1>", "<div aria-hidden=true>a", "<main>a", "<article><h2>b</h2>", "<?xml <a/>", "\xa0", "<b>a ", "<a href=x>"],
)  # fmt: skip
@pytest.mark.parametrize("start", ["", "<?xml version='1.0'?>"])
def test_time_grows_with_the_page_only(pattern: str, start: str) -> None:
    short, long = ((start + (pattern * size)[:size]).encode() for size in (20_000, 80_000))
    read(short[:100])
    assert_linear(read, short, long, 4)
