"""Reads the text of PDF files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

from hyblink.app.core.errors import InvalidInputError
from hyblink.app.core.types.documents import Section
from hyblink.indexer.readers.format import WholeFile
from hyblink.indexer.readers.ocr import text_of_page
from hyblink.indexer.readers.pdf_about import author_of, date_of, outline, plain, title_of
from hyblink.indexer.readers.pdf_layout import Line, page_lines
from hyblink.indexer.readers.pdf_words import join_words, without_ligatures, without_repeated

_PASSWORD_ERRORS = (4, 5)
_EXPECTED = "a readable PDF"


def read(data: bytes) -> WholeFile:
    """Title, text and pages of a PDF file; the text of a scan is empty.

    Raises InvalidInputError if it is broken, cut off or encrypted.
    """
    import pypdfium2  # type: ignore[import-untyped, unused-ignore]

    try:
        with closing(pypdfium2.PdfDocument(data)) as document:
            return _read(document, complete=_is_complete(data))
    except pypdfium2.PdfiumError as error:
        if getattr(error, "err_code", None) in _PASSWORD_ERRORS:
            raise InvalidInputError("the PDF is encrypted", expected="a PDF that opens without a password") from error
        raise InvalidInputError(f"the PDF cannot be read: {error}", expected=_EXPECTED) from error


def read_scans(data: bytes) -> WholeFile:
    """As `read`; pages without text are read by Tesseract, and the metadata say so as `ocr`."""
    import pypdfium2

    found = read(data)
    texts: list[str] = []
    sections: list[Section] = []
    length = scanned = 0
    ends = [*(section.start for section in found.sections[1:]), len(found.text)][: len(found.sections)]
    with closing(pypdfium2.PdfDocument(data)) as document:
        known: dict[int, list[tuple[Section, str]]] = {}
        for section, end in zip(found.sections, ends, strict=True):
            number = int(section.place.removeprefix("page "))
            known.setdefault(number, []).append((section, found.text[section.start : end].strip("\n")))
        for number in range(1, len(document) + 1):
            parts = known.get(number, [])
            if not any(text.strip() for _, text in parts):
                with closing(document[number - 1]) as page:
                    parts = [(Section(0, (), f"page {number}"), text_of_page(page))]
                scanned += bool(parts[0][1])
            for section, text in parts:
                if text:
                    start = length + 2 if texts else 0
                    sections.append(replace(section, start=start))
                    texts.append(text)
                    length = start + len(text)
    metadata = {**found.metadata, **({"ocr": scanned} if scanned else {})}
    return WholeFile(found.title, "\n\n".join(texts), metadata, tuple(sections))


def _is_complete(data: bytes) -> bool:
    """False if the file ends before its last object or before the table of its objects.

    PDFium looks for objects in such a file and shows what is there, without a word of what is lost.
    """
    end = data[max(data.rfind(b"endobj"), data.rfind(b" obj"), 0) :]
    return any(word in end for word in (b"startxref", b"trailer", b"xref"))


def _read(document: Any, complete: bool) -> WholeFile:
    """The content of an open PDF. Raises InvalidInputError if a part of it is lost."""
    from pypdfium2 import raw  # type: ignore[import-untyped, unused-ignore]

    pages = len(document)
    if not complete:
        raise InvalidInputError("the PDF cannot be read: it is cut off", expected=_EXPECTED)
    if not pages:
        raise InvalidInputError("the PDF cannot be read: it has no pages", expected=_EXPECTED)
    lines: list[Line] = []
    for number in range(pages):
        with closing(document[number]) as page:
            lines += page_lines(raw, page, number)
    for line in lines:
        # A soft hyphen at the end still tells that the word goes on.
        soft = "\u00ad" if line.text.endswith("\u00ad") else ""
        line.text = without_ligatures(line.text).strip() + soft
    lines = without_repeated([line for line in lines if line.text], pages)
    join_words(lines)
    text, sections = _put_together(lines, pages, outline(document))
    told = document.get_metadata_dict()
    about = {"author": author_of(told.get("Author", "")), "created": date_of(told.get("CreationDate", ""))}
    metadata = {"pages": pages} | {name: value for name, value in about.items() if value}
    return WholeFile(title_of(told.get("Title", "")), text, metadata, sections if text else ())


def _put_together(
    lines: list[Line], pages: int, bookmarks: dict[int, list[tuple[int, str]]]
) -> tuple[str, tuple[Section, ...]]:
    """The text and its sections: the pages, and the parts of pages that begin with the title of a bookmark."""
    by_page: list[list[Line]] = [[] for _ in range(pages)]
    for line in lines:
        if line.text.strip("\u00ad "):
            by_page[line.page].append(line)
    parts: list[str] = []
    sections: list[Section] = []
    length = 0
    path: list[str] = []
    for number, page in enumerate(by_page):
        starts = {0: tuple(path)} | dict(_headings(page, bookmarks.get(number, ()), path))
        for at, line in enumerate(page):
            separator = "" if not parts else "\n\n" if at == 0 or line.apart or at in starts else "\n"
            if at in starts:
                # White space belongs to the section before.
                sections.append(Section(length + len(separator), starts[at], f"page {number + 1}"))
            parts += (separator, line.text)
            length += len(separator) + len(line.text)
    return "".join(parts), tuple(sections)


def _headings(
    page: list[Line], marks: list[tuple[int, str]] | tuple[()], path: list[str]
) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Where the page's bookmarks begin (the number of a line), and the path from there. Goes on with `path`."""
    places: dict[str, int] = {}
    for at, line in enumerate(page):
        places.setdefault(plain(line.text), at)
        places.setdefault(plain(line.text.lstrip("0123456789.()§ \t")), at)
    reached = 0
    for level, title in marks:
        del path[level:]
        path.append(title)
        reached = max(reached, places.get(plain(title), places.get(plain(title.lstrip("0123456789.()§ \t")), 0)))
        yield reached, tuple(path)
