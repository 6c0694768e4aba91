"""Reads the text of PDF files."""

from __future__ import annotations

import io

from hyblink.app.core.errors import InvalidInputError
from hyblink.indexer.readers.format import WholeFile
from hyblink.indexer.readers.tidy import tidy


def read(data: bytes) -> WholeFile:
    """Title, text and page count of a PDF file. Raises InvalidInputError if it is broken or encrypted."""
    title, text, pages = pdf_text(data)
    return WholeFile(title, text, {"pages": pages})


def pdf_text(data: bytes) -> tuple[str, str, int]:
    """(title, text, number of pages) of a PDF. Raises InvalidInputError if it is broken or encrypted."""
    from pypdf import PdfReader
    from pypdf.errors import PyPdfError

    try:
        reader = PdfReader(io.BytesIO(data), strict=False)
        if reader.is_encrypted and not reader.decrypt(""):
            raise InvalidInputError("the PDF is encrypted", expected="a PDF that opens without a password")
        text = "\n\n".join(page.extract_text() or "" for page in reader.pages)
        title = str((reader.metadata.title if reader.metadata else "") or "")
        pages = len(reader.pages)
    except (
        PyPdfError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        IndexError,
        RecursionError,
        OSError,
    ) as error:
        raise InvalidInputError(f"the PDF cannot be read: {error}", expected="a readable PDF") from error
    clean = text.encode("utf-8", "replace").decode().replace("\x00", " ")
    return title.replace("\x00", " ").strip(), tidy(clean), pages
