"""Plain text: a file is a document."""

from __future__ import annotations

from hyblink.indexer.readers.format import WholeFile
from hyblink.indexer.readers.rows import decode


def read(data: bytes) -> WholeFile:
    """The file's text. Raises InvalidInputError where it is not UTF-8."""
    return WholeFile("", decode(data))
