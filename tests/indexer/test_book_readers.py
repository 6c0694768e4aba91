"""EPUB, RTF and notebook files: text, titles, sections, and what is refused."""

from __future__ import annotations

import contextlib
import json

import pytest
from support.reader_files import BOMB, check, zipped

from hyblink.app.core.errors import InvalidInputError
from hyblink.indexer.readers.ebook import read_epub
from hyblink.indexer.readers.notebook import read_ipynb
from hyblink.indexer.readers.rtf import read_rtf


def epub(pages: dict[str, str], spine: list[str] | None = None, extra: dict[str, str | bytes] | None = None) -> bytes:
    items = "".join(
        f'<item id="i{n}" href="{name}" media-type="application/xhtml+xml"/>' for n, name in enumerate(spine or pages)
    )
    refs = "".join(f'<itemref idref="i{n}"/>' for n, _ in enumerate(spine or pages))
    return zipped(
        {
            "META-INF/container.xml": '<container xmlns="urn:x"><rootfiles><rootfile full-path="OEBPS/book.opf"/></rootfiles></container>',
            "OEBPS/book.opf": f'<package xmlns="urn:o" xmlns:dc="urn:d"><metadata><dc:title>The Mill</dc:title><dc:creator>Ada</dc:creator><dc:language>en</dc:language><dc:date>2020-05-01T00:00:00Z</dc:date></metadata><manifest>{items}</manifest><spine>{refs}</spine></package>',
            **{f"OEBPS/{name}": text for name, text in pages.items()},
            **(extra or {}),
        }
    )


def test_rich_text() -> None:
    source = (
        rb"{\rtf1\ansi\ansicpg1252{\fonttbl{\f0\fswiss\fcharset0 Arial;}{\f1\fcharset78 Osaka;}}{\info{\title Mill {\b rules}}{\author Ad\'e9}}"
        rb"{\header HEADER}\pard\outlinelevel0 Top\par\pard Caf\'e9 and \u8364? and \u-10179?\u-8704? caf"
        + b"\xe9"
        + rb"\par"
        rb"{\field{\*\fldinst{HYPERLINK http://x}}{\fldrslt the link}}\par \trowd a\cell b\cell\row c\cell d\cell\row\pard end{\pict\bin4 "
        + b"}}{{"
        + rb"}\par}"
    )
    file = read_rtf(source)
    assert file.title == "Mill rules"
    assert file.text == "Top\n\nCafé and € and 😀 café\n\nthe link\n\na | b\nc | d\n\nend"
    assert check(file) == [("", "Top", "Top")]
    assert file.metadata == {"author": "Adé"}


def test_book() -> None:
    page = '<?xml version="1.0"?><!DOCTYPE html PUBLIC "x" "http://127.0.0.1:9/x.dtd"><html xmlns="http://www.w3.org/1999/xhtml"><head><title/><script/></head><body>{}</body></html>'
    file = read_epub(
        epub(
            {
                "one.xhtml": page.format(
                    "<h1>One</h1><p>It&nbsp;was <b>dark</b>.<br/>Very.</p><ul><li>a</li><li>b</li></ul><h2>Sub</h2><table><tr><td>1</td><td>2</td></tr></table><pre>x\n  y</pre>"
                ),
                "two.xhtml": "<html><body><h1>Two</h1><div>broken <p>tags<div>here &copy; <title/></body>",
            },
            ["one.xhtml", "two.xhtml", "missing.xhtml", "../../etc/passwd", "one.xhtml", "http://127.0.0.1:9/x"],
        )
    )
    assert (
        file.text
        == "One\n\nIt was dark.\nVery.\n\n- a\n- b\n\nSub\n\n1 | 2\n\nx\n  y\n\nTwo\n\nbroken\n\ntags\n\nhere ©"
    )
    assert check(file) == [("", "One", "One"), ("", "One > Sub", "Sub"), ("", "Two", "Two")]
    assert (file.title, file.metadata) == ("The Mill", {"author": "Ada", "language": "en", "created": "2020-05-01"})


def test_encrypted_book() -> None:
    lock = '<encryption xmlns="urn:e"><EncryptedData><CipherData><CipherReference URI="OEBPS/{}"/></CipherData></EncryptedData></encryption>'
    with pytest.raises(InvalidInputError, match="encrypted"):
        read_epub(epub({"a.xhtml": "<p>x</p>"}, extra={"META-INF/encryption.xml": lock.format("a.xhtml")}))
    assert (
        read_epub(epub({"a.xhtml": "<p>x</p>"}, extra={"META-INF/encryption.xml": lock.format("font.otf")})).text == "x"
    )


def test_notebook() -> None:
    cells = [
        {"cell_type": "markdown", "source": ["Intro\n", "# Churn\n", "We fit.\n", "```\n", "# no heading\n", "```"]},
        {"cell_type": "code", "source": "df.head()", "outputs": [{"output_type": "stream", "text": ["x" * 20_000]}, {"output_type": "display_data", "data": {"image/png": "iVBOR", "text/html": "<b>", "text/plain": ["<Figure>"]}}, {"output_type": "error", "ename": "E", "evalue": "bad"}]},
        {"cell_type": "markdown", "source": "Data\n====\n\n## Sub ##"},
        "odd", {"cell_type": "code", "source": None, "outputs": 3},
    ]  # fmt: skip
    file = read_ipynb(json.dumps({"cells": cells, "metadata": {"kernelspec": {"language": "python"}}}).encode())
    assert file.title == "Churn"
    assert (
        file.text
        == f"Intro\n\nChurn\n\nWe fit.\n```\n# no heading\n```\n\ndf.head()\n\n{'x' * 10_000}\n\nE: bad\n\nData\n\nSub"
    )
    assert check(file) == [
        ("cell 1", "", "Intro"),
        ("cell 1", "Churn", "Churn"),
        ("cell 2", "Churn", "df.head()"),
        ("cell 3", "Data", "Data"),
        ("cell 3", "Data > Sub", "Sub"),
    ]
    assert file.metadata == {"language": "python"}
    for bad in (b"[]", b"{", b"{}", b"[" * 100_000):
        with pytest.raises(InvalidInputError):
            read_ipynb(bad)


def test_rich_text_refused_or_read() -> None:
    for bad in (b"", b"text", b"PK\x03\x04"):
        with pytest.raises(InvalidInputError):
            read_rtf(bad)
    for odd in (rb"{\rtf1 {{{", rb"{\rtf1\fonttbl\f1 a}", rb"{\rtf1\u99999999999 x}", rb"{\rtf1\bin9999 x}", rb"{\rtf1 " + rb"{\field{\*\fldinst{" * 20_000, rb"{\rtf1{\fonttbl" + rb"\f1" * 50_000, rb"{\rtf1{\info" + rb"{\title " * 20_000):  # fmt: skip
        with contextlib.suppress(InvalidInputError):
            check(read_rtf(odd))


def test_broken_books_are_refused() -> None:
    data = epub({"a.xhtml": "<p>x</p>"})
    for bad in (b"", b"PK\x03\x04", data[: len(data) // 2], zipped({"a": "b"})):
        with pytest.raises(InvalidInputError):
            read_epub(bad)
    with pytest.raises(InvalidInputError, match="bomb"):
        read_epub(epub({"a.xhtml": "a" * (70 << 20)}))
    for at in range(0, len(data), 20):  # any byte may be wrong
        with contextlib.suppress(InvalidInputError):
            check(read_epub(data[:at] + bytes([data[at] ^ 0x5A]) + data[at + 1 :]))


@pytest.mark.parametrize("text", ["&c;", "&f;", "&u;"])
def test_entities_in_books_are_not_resolved(text: str) -> None:
    assert len(read_epub(epub({"a.xhtml": f"{BOMB}<html><body><p>{text}</p></body></html>"})).text) < 40
