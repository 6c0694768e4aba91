"""Cuts documents into passages: windows of similar size that end at sentence or line ends.

Only a word longer than half a window can be cut. Neighbouring windows overlap, so that a short statement at a boundary
is complete in one of them. Every code point of the document is in at least one window.
"""

from __future__ import annotations

import re

_STRONG = re.compile(r"\n\s*\n|(?<=[.!?])\s+(?=[A-Z0-9\"'(])|(?<=[。！？])|\n")
_WEAK = re.compile(r"\s+")


def windows(text: str, size: int, overlap: int) -> tuple[tuple[int, int], ...]:
    """The windows of a text as spans `(start, end)` of code points, in order.

    `size` and `overlap` are in code points. With size 0 the whole text is one window.

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
    """The last good end before `limit`, in the second half of the window: after a sentence or line, else a word."""
    half = start + (limit - start) // 2
    for pattern in (_STRONG, _WEAK):
        ends = [found.end() for found in pattern.finditer(text, half, limit) if found.end() > start]
        if ends:
            return ends[-1]
    return limit


def _resume(text: str, end: int, overlap: int) -> int:
    """The start of the next window: the first sentence start within the overlap, else word start, else `end`."""
    low = max(0, end - overlap)
    for pattern in (_STRONG, _WEAK):
        starts = [found.end() for found in pattern.finditer(text, low, end) if low <= found.end() < end]
        if starts:
            return starts[0]
    return end
