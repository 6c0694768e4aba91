"""Validation and Unicode normalisation of text before it is stored or searched."""

from __future__ import annotations

import re
import unicodedata

from hyblink.app.core.errors import InvalidInputError

_FORBIDDEN = re.compile("[\x00\ud800-\udfff]")


def check_text(text: object, name: str) -> str:
    """`text` itself if it is a string that every engine can store.

    Raises InvalidInputError for other types, NUL characters and lone surrogates.
    """
    if not isinstance(text, str):
        raise InvalidInputError(f"{name} has the wrong type", received=text, expected="a string")
    if text.isascii() and "\x00" not in text:
        return text
    found = _FORBIDDEN.search(text)
    if found:
        kind = "a NUL character" if found.group() == "\x00" else "a lone surrogate"
        raise InvalidInputError(
            f"{name} holds {kind} at character {found.start()}",
            received=text[max(0, found.start() - 10) : found.start() + 10],
            expected="text without NUL characters and lone surrogates",
        )
    return text


def fold(text: str) -> str:
    """`text` in Unicode normalisation form C (NFC).

    The analyzer normalises single words, not whole texts, so offsets stay those of the text as it was sent.
    """
    return text if text.isascii() else unicodedata.normalize("NFC", text)
