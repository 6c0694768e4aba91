"""Reads files and their lines with size limits, decompressing gzip."""

from __future__ import annotations

import bz2
import codecs
import gzip
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, cast

from hyblink.app.core.errors import InvalidInputError, TooLargeError, UserError
from hyblink.indexer.readers.encodings import as_utf8, decoded

_CHUNK = 1 << 20
_BOMB_BYTES = 256 * 2**20
_BOMB_RATIO = 400
"""Decompression-bomb limit: past the first 256 MiB, a gzip file may not expand to more than this times its size."""


def open_bytes(path: Path, opened: Callable[[IO[bytes]], None] = lambda _: None) -> IO[bytes]:
    """Open a file for reading bytes, decompressed if the name ends in .gz.

    `opened` is called with the raw (still compressed) file, whose position tells the progress.
    """
    if path.suffix != ".gz":
        plain = path.open("rb")
        opened(plain)
        return plain
    unpacked = gzip.GzipFile(path, "rb")
    opened(cast("IO[bytes]", unpacked.fileobj))
    return cast("IO[bytes]", unpacked)


def open_packed(path: Path) -> IO[bytes]:
    """Open a file for reading bytes, decompressed if the name ends in .gz or .bz2."""
    return cast("IO[bytes]", bz2.open(path, "rb")) if path.suffix == ".bz2" else open_bytes(path)


def read_bounded(path: Path, limit: int) -> bytes:
    """The decompressed content of a file. Raises TooLargeError over `limit` bytes, InvalidInputError if broken."""
    try:
        with open_bytes(path) as file:
            data = file.read(limit + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InvalidInputError(f"the gzip stream is broken: {error}", expected="a whole gzip file") from error
    if len(data) > limit:
        raise TooLargeError("the file is too large", received=f"over {limit} bytes", expected=f"at most {limit} bytes")
    return data


def decode(data: bytes) -> str:
    """The text of bytes in any encoding; see `encodings.decoded`. Raises InvalidInputError for broken UTF-8."""
    return decoded(data)


def utf8(line: bytes) -> str:
    """Decode UTF-8 with or without a byte order mark. Raises InvalidInputError that names the first bad byte."""
    try:
        return line.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInputError(
            f"not UTF-8 at byte {error.start}",
            received=line[error.start : error.start + 8],
            expected="UTF-8 text, or --encoding with the name of another",
        ) from error


def lines(
    path: Path,
    limit: int,
    opened: Callable[[IO[bytes]], None] = lambda _: None,
    encoding: str | None = None,
    noted: Callable[[str], None] = lambda _: None,
    *,
    guess: bool = True,
) -> Iterator[tuple[int, bytes | UserError]]:
    """Yield (line number from 1, line in UTF-8 without its line break), or (line number, error).

    Text in another encoding, `encoding` or the one that is found, is read as UTF-8. `noted` is told if it was guessed;
    without `guess` it is UTF-8 or UTF-16.
    A line over `limit` bytes yields TooLargeError and is not held in memory. A broken gzip stream or a decompression
    bomb yields InvalidInputError and ends the iteration.
    """
    number = 0
    packed = path.stat().st_size if path.suffix == ".gz" else 0
    most, unpacked = max(_BOMB_BYTES, _BOMB_RATIO * packed), 0

    def check(size: int) -> None:
        nonlocal unpacked
        unpacked += size
        if packed and unpacked > most:
            raise gzip.BadGzipFile(f"{packed} bytes unpack to more than {most}")

    try:
        with open_bytes(path, opened) as packed_file:
            file, found = as_utf8(packed_file, encoding, guess=guess)
            if found.guessed:
                noted(f"read as {found.name}, which was guessed; --encoding names another")
            while line := file.readline(limit + 2):
                number += 1
                check(len(line))
                if len(line) > limit + 1 and not line.endswith(b"\n"):
                    size = len(line)
                    while (rest := file.readline(_CHUNK)) and not rest.endswith(b"\n"):
                        size += len(rest)
                        check(len(rest))
                    yield (
                        number,
                        TooLargeError(
                            "the row is too long",
                            received=f"{size + len(rest)} bytes",
                            expected=f"at most {limit} bytes",
                        ),
                    )
                    continue
                yield number, line.rstrip(b"\r\n").removeprefix(codecs.BOM_UTF8 if number == 1 else b"")
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        yield (
            number + 1,
            InvalidInputError(f"the gzip stream is broken: {error}", expected="a whole gzip file"),
        )
