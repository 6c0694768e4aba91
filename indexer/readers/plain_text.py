"""Reads plain text: each file is one document."""

from __future__ import annotations

from hyblink.indexer.readers.format import WholeFile
from hyblink.indexer.readers.rows import decode


def read(data: bytes) -> WholeFile:
    """The text of a file, without a title. Raises InvalidInputError if it is not UTF-8."""
    return WholeFile("", decode(data))
