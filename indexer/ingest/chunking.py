"""Documents to passages: windows of about the same size that end where sentences or lines end.

A window never cuts a word unless the word alone is longer than a window. Neighbours overlap, so that a statement on
a boundary stands whole in one of them. Every code point of the document is in at least one window.
"""

from __future__ import annotations

import re

_STRONG = re.compile(r"\n\s*\n|(?<=[.!?])\s+(?=[A-Z0-9\"'(])|(?<=[。！？])|\n")
_WEAK = re.compile(r"\s+")


def windows(text: str, size: int, overlap: int) -> tuple[tuple[int, int], ...]:
    """Spans `(start, end)` of code points, in order. `size` and `overlap` are in code points; size 0 keeps all in one.

    >>> windows("One two. Three four. Five six.", 22, 0)
    ((0, 21), (21, 30))
    >>> windows("", 100, 10)
    ((0, 0),)
    """
    if size <= 0 or len(text) <= size:
        return ((0, len(text)),)
    spans: list[tuple[int, int]] = []
    start = 0
    while True:
        if len(text) - start <= size:
            spans.append((start, len(text)))
            return tuple(spans)
        end = _cut(text, start, start + size)
        spans.append((start, end))
        start = max(_resume(text, end, overlap), spans[-1][0] + 1) if overlap else end


def _cut(text: str, start: int, limit: int) -> int:
    """The last good place to end before `limit`: after a sentence or line in the later half, else after a word."""
    half = start + (limit - start) // 2
    for pattern in (_STRONG, _WEAK):
        ends = [found.end() for found in pattern.finditer(text, half, limit) if found.end() > start]
        if ends:
            return ends[-1]
    return limit


def _resume(text: str, end: int, overlap: int) -> int:
    """Where the next window starts: at the beginning of a sentence, else of a word, within the overlap."""
    low = max(0, end - overlap)
    for pattern in (_STRONG, _WEAK):
        starts = [found.end() for found in pattern.finditer(text, low, end) if low <= found.end() < end]
        if starts:
            return starts[0]
    return end
