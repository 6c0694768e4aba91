"""White space as it was meant: blank lines between paragraphs, no more."""

from __future__ import annotations

import re

_BLANK = re.compile(r"[ \t]*\n[ \t]*(?:\n[ \t]*)+")


def tidy(text: str) -> str:
    """The text with one blank line between paragraphs."""
    return _BLANK.sub("\n\n", text.replace("\r\n", "\n")).strip()
