"""Reads entities from the files of a DICT server (RFC 2229): `NAME.index` with `NAME.dict` or `NAME.dict.dz`."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hyblink.app.core.errors import InvalidInputError, NotFoundError, TooLargeError
from hyblink.indexer.readers.rows import decode, read_bounded

_MAX_FILE = 2**30
_DIGITS = {sign: at for at, sign in enumerate("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")}


def _number(digits: str) -> int:
    value = 0
    for digit in digits:
        value = value * 64 + _DIGITS[digit]
    return value


def _definitions(path: Path) -> bytes:
    plain, packed = path.with_suffix(".dict"), path.with_suffix(".dict.dz")
    if plain.is_file():
        return read_bounded(plain, _MAX_FILE)
    if not packed.is_file():
        raise NotFoundError("no such file", received=str(plain))
    try:
        with gzip.open(packed) as file:  # dictzip is gzip with an index of its own
            data = file.read(_MAX_FILE + 1)
    except (EOFError, OSError, zlib.error) as error:
        raise InvalidInputError(f"{packed.name} is broken: {error}", expected="a whole file of dictzip") from error
    if len(data) > _MAX_FILE:
        raise TooLargeError("the dictionary is too large", expected=f"at most {_MAX_FILE} bytes")
    return data


def dict_entities(path: Path) -> Iterator[dict[str, Any]]:
    """Yield one entity for each definition, given the path of the `.index` file.

    All headwords of a definition are its names. The title is the headword that equals the first line of the text, or
    the first headword if none does. The other headwords are aliases.

    Raises NotFoundError if the dictionary file is missing, InvalidInputError for broken files, TooLargeError for files
    over 1 GiB.
    """
    data = _definitions(path)
    entries: dict[tuple[int, int], list[str]] = {}
    for number, line in enumerate(decode(read_bounded(path, _MAX_FILE)).splitlines(), 1):
        fields = line.split("\t")
        try:
            place = (_number(fields[1]), _number(fields[2]))
        except (IndexError, KeyError):
            raise InvalidInputError(
                f"{path.name}:{number} is not a row of an index", received=line[:80], expected="word, offset, length"
            ) from None
        if sum(place) > len(data):
            raise InvalidInputError(
                f"{path.name}:{number} points behind the dictionary's end", received=f"{place[0]} + {place[1]} bytes",
                expected=f"at most {len(data)}",
            )  # fmt: skip
        word = fields[3] if len(fields) > 3 and fields[3] else fields[0]  # field 3: the headword before case folding
        if not word.startswith(("00-database", "00database")):
            entries.setdefault(place, []).append(word)
    for (start, size), words in entries.items():
        text = data[start : start + size].decode("utf-8", "replace")
        head = text.lstrip().partition("\n")[0].strip().casefold()
        title = next((word for word in words if word.casefold() == head), words[0])
        yield {
            "id": f"{path.stem}:{start}",
            "title": title,
            "aliases": [word for word in words if word != title],
            "description": re.sub(r"\s+", " ", text).strip(),
            "world": path.stem,
        }
