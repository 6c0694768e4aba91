"""Normalises blank lines in extracted text."""

from __future__ import annotations

import re

# The lookbehind lets each row of spaces be looked through once: from each space it would take quadratic time.
_BLANK = re.compile(r"(?<![ \t])[ \t]*\n[ \t]*(?:\n[ \t]*)+")


def tidy(text: str) -> str:
    """The stripped text with exactly one blank line between paragraphs. Single line breaks are kept."""
    return _BLANK.sub("\n\n", text.replace("\r\n", "\n")).strip()
