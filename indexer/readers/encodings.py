"""Finds out how the text of a file is encoded, and reads it as UTF-8.

A byte order mark decides first, then whether the bytes are UTF-8, then the pattern of zeros of UTF-16 without a mark.
What remains is a guess by charset-normalizer over the beginning of the file, which is said, and which a name given by
the caller replaces.
"""

from __future__ import annotations

import codecs
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import IO, cast

from hyblink.app.core.errors import InvalidInputError

SAMPLE_BYTES = 1 << 20
_told: ContextVar[tuple[str | None, list[str]] | None] = ContextVar("told", default=None)
_CHUNK = 1 << 16
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_LOOKED_AT = 4096
_ZEROS = 0.3
"""The least share of zeros at every second byte that UTF-16 without a mark has in European text."""
_PRINTABLE = 0.98
_GUESSED_BYTES = 64 << 10
_FALLBACK = "cp1252"
_COMMON = frozenset("äöüÄÖÜßéèêëàâáãåçîïíìñôóòõøœûùúýÉÈÊÀÂÁÃÅÆæÇÎÍÑÔÓØŒÚ€£§°±²µ·½¼«»–—‘’“”„…•™©®´\xa0")
_LIKELY = (
    "cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "koi8_r", "koi8_u", "cp866",
    "iso8859_2", "iso8859_5", "iso8859_7", "iso8859_9", "cp932", "euc_jp", "gb18030", "big5", "cp949", "cp437", "cp850",
    "mac_roman", "cp874",
)  # fmt: skip
"""Encodings that people's files have, those of the WHATWG standard and of DOS and old Macs."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """The name of an encoding as Python knows it, and whether it was guessed from the bytes."""

    name: str
    guessed: bool = False


def known(name: str) -> str:
    """The name of a text encoding as Python spells it. Raises InvalidInputError for one that it does not know."""
    try:
        found = codecs.lookup(name)
        "".encode(found.name)
    except (LookupError, ValueError):
        raise InvalidInputError(
            "unknown encoding", received=name, expected="a name such as utf-8, utf-16, cp1252, latin-1 or shift_jis"
        ) from None
    # What calls itself Latin-1 is nearly always Windows-1252, which has all of its letters; browsers read it so too.
    return _FALLBACK if found.name == "iso8859-1" else found.name


def encoding_of(sample: bytes, given: str | None = None, *, guess: bool = True) -> Encoding:
    """The encoding of a text that begins with `sample`, up to `SAMPLE_BYTES` of it.

    Without `guess`, what is not UTF-16 is UTF-8, as in formats that say so.
    """
    if given:
        return Encoding(known(given))
    for mark, name in _MARKS:
        if sample.startswith(mark):
            return Encoding(name)
    if sample.isascii() and b"\x00" not in sample[:_LOOKED_AT]:
        return Encoding("utf-8")
    zeros = _without_mark(sample)
    if zeros:
        return Encoding(zeros, guessed=True)
    if not guess or _is_utf8(sample):
        return Encoding("utf-8")
    return Encoding(_guess(sample), guessed=True)


def is_binary(sample: bytes) -> bool:
    """Whether the beginning of a file is no text: zeros that are not those of UTF-16 or UTF-32, or control codes."""
    if any(sample.startswith(mark) for mark, _ in _MARKS):
        return False
    head = sample[:_LOOKED_AT]
    if b"\x00" in head:
        return not _without_mark(sample)
    control = sum(byte < 32 and byte not in b"\t\n\r\f\x1b\x08" for byte in head)
    return control > len(head) * 0.02


def _without_mark(sample: bytes) -> str:
    """UTF-16 without a byte order mark, by its zeros; "" for anything else."""
    head = sample[:_LOOKED_AT]
    if len(head) < 8 or b"\x00" not in head:
        return ""
    even, odd = head[::2].count(0) / len(head[::2]), head[1::2].count(0) / len(head[1::2])
    name = "utf-16-le" if odd > _ZEROS and even < odd / 8 else "utf-16-be" if even > _ZEROS and odd < even / 8 else ""
    if not name:
        return ""
    text = head[: len(head) // 2 * 2].decode(name, "replace")
    return name if sum(char.isprintable() or char.isspace() for char in text) >= _PRINTABLE * len(text) else ""


def _is_utf8(sample: bytes) -> bool:
    """Whether text is meant as UTF-8: more of its characters beyond ASCII are right than wrong."""
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    text = decoder.decode(sample)  # an unfinished character at the end is not looked at
    beyond = sum(char >= "\x80" for char in text)
    wrong = sum("\udc80" <= char <= "\udcff" for char in text)
    return wrong * 2 < beyond or not beyond


def _guess(sample: bytes) -> str:
    from charset_normalizer import from_bytes

    # Only what is not ASCII tells encodings apart: lines that have some of it.
    odd = b"\n".join(line for line in sample.splitlines() if not line.isascii())[:_GUESSED_BYTES]
    if _western(odd):
        return _FALLBACK
    found = from_bytes(odd, cp_isolation=list(_LIKELY)).best()
    return known(found.encoding) if found is not None else _FALLBACK


def _western(sample: bytes) -> bool:
    """Whether bytes read as Windows-1252 are ASCII letters with some letters and marks of Western languages."""
    text = sample.decode(_FALLBACK, "replace")
    beyond = [char for char in text if char >= "\x80"]
    letters = sum(char.isalpha() for char in text if char < "\x80")
    return len(beyond) <= letters and sum(char in _COMMON for char in beyond) >= 0.8 * len(beyond)


@contextmanager
def told_encodings(given: str | None = None) -> Iterator[list[str]]:
    """Inside, `decoded` reads texts in the encoding `given`, and the names of those that it guesses are in the list."""
    guesses: list[str] = []
    token = _told.set((given, guesses))
    try:
        yield guesses
    finally:
        _told.reset(token)


def decoded(data: bytes, given: str | None = None) -> str:
    """The text of bytes, without a byte order mark; what is no character becomes U+FFFD.

    Raises InvalidInputError for text in UTF-8 that is wrong somewhere, with the place of the first wrong byte.
    """
    outer, guesses = _told.get() or (None, [])
    found = encoding_of(data[:SAMPLE_BYTES], given or outer)
    encoding = found.name
    if found.guessed:
        guesses.append(encoding)
    try:
        return data.decode("utf-8-sig" if encoding == "utf-8" else encoding)
    except UnicodeDecodeError as error:
        if encoding in {"utf-8", "utf-8-sig"}:
            raise InvalidInputError(
                f"not UTF-8 at byte {error.start}",
                received=data[error.start : error.start + 8],
                expected="UTF-8 text, or --encoding with the name of another",
            ) from error
        return data.decode(encoding, "replace")


class _Recoding(io.RawIOBase):
    """A file of another encoding, read as UTF-8."""

    def __init__(self, file: IO[bytes], encoding: str, *, bare_returns: bool = False) -> None:
        """`bare_returns`: lines end with a carriage return alone."""
        self._file = file
        self._bare_returns = bare_returns
        self._decoder = codecs.getincrementaldecoder(encoding)("replace")
        self._left = b""
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        while not self._left and not self._ended:
            chunk = self._file.read(_CHUNK)
            self._ended = not chunk
            text = self._decoder.decode(chunk, final=self._ended)
            self._left = (text.replace("\r", "\n") if self._bare_returns else text).encode()
        count = min(len(buffer), len(self._left))
        buffer[:count] = self._left[:count]
        self._left = self._left[count:]
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def as_utf8(file: IO[bytes], given: str | None = None, *, guess: bool = True) -> tuple[IO[bytes], Encoding]:
    """(the file from its beginning as UTF-8, its encoding). The file must be at its beginning and able to seek."""
    sample = b""
    with suppress(EOFError, OSError, zlib.error):  # a broken end of a packed file is told to who reads that far
        while len(sample) < SAMPLE_BYTES and (chunk := file.read(_CHUNK)):
            sample += chunk
    file.seek(0)
    encoding = encoding_of(sample, given, guess=guess)
    text = sample.decode(encoding.name, "ignore") if b"\r" in sample else ""
    bare_returns = "\r" in text and "\n" not in text  # as on a Mac of before 2001
    if encoding.name in {"utf-8", "utf-8-sig", "ascii"} and not bare_returns:
        return file, encoding
    recoded = _Recoding(file, encoding.name, bare_returns=bare_returns)
    return cast("IO[bytes]", io.BufferedReader(recoded, _CHUNK)), encoding
