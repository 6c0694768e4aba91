"""Cuts documents into passages: windows of similar size that end at sentence or line ends.

Passages end where a section ends. Tables and code are kept whole where they fit. Only a word longer than half a window
can be cut. Neighbouring windows of a section overlap, so that a short statement at a boundary is complete in one of
them. Every code point of the document is in at least one window.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence

from hyblink.app.core.types.documents import Section

_STRONG = re.compile(r"\n\s*\n|(?<=[.!?])\s+(?=[A-Z0-9\"'(])|(?<=[。！？])|\n")
_WEAK = re.compile(r"\s+")
_PARAGRAPH = re.compile(r"^(?:[^\S\n]*+\S[^\n]*+(?:\n|\Z))++", re.MULTILINE)
_CODE = re.compile(
    r"[ \t]+\S|[$>#@}]|//|/\*|(?:import|from|def|class|return|if|for|const|let|var|function|public|private)\b.*"
    r"|.*[;{}()\[\],=\\]$"
)
_LARGEST = 4000
"""Code with blank lines in it counts as one up to so many characters."""
_WORDS = re.compile(r"\w+")


def windows(text: str, size: int, overlap: int, sections: Sequence[Section] = ()) -> tuple[tuple[int, int], ...]:
    """The windows of a text as spans `(start, end)` of code points, in order.

    `size` and `overlap` are in code points. With size 0 the whole text is one window. A section of nothing but its
    heading goes with the section below it.

    >>> windows("One two. Three four. Five six.", 22, 0)
    ((0, 21), (21, 30))
    >>> windows("One\\n\\nTwo.\\n\\nThree.", 22, 0, [Section(0, ("One",)), Section(11, ("Three",))])
    ((0, 11), (11, 17))
    >>> windows("", 100, 10)
    ((0, 0),)
    """
    if size <= 0:
        return ((0, len(text)),)
    return tuple(span for start, end in _parts(text, sections) for span in _windows(text, start, end, size, overlap))


def _parts(text: str, sections: Sequence[Section]) -> Iterator[tuple[int, int]]:
    """The spans that no window crosses."""
    starts = [section.start for section in sections if section.start < len(text)]
    start = 0
    for at, end in enumerate([*starts[1:], len(text)]):
        above = sections[at].path if sections else ()
        if end < len(text) and above and sections[at + 1].path[: len(above)] == above:
            own = text[starts[at] : min(end, starts[at] + 2 * len(above[-1]) + 100)]
            if _WORDS.findall(own) == _WORDS.findall(above[-1]):
                continue  # a heading, and the next section is below it
        yield start, end
        start = end


def _windows(text: str, first: int, last: int, size: int, overlap: int) -> Iterator[tuple[int, int]]:
    if last - first <= size:
        yield first, last
        return
    blocks = list(_whole(text, first, last))
    starts = [start for start, _ in blocks]
    start = first
    while last - start > size:
        end = _cut(text, start, start + size)
        at = bisect_right(starts, end) - 1
        if at >= 0 and start < starts[at] < end < blocks[at][1] and blocks[at][1] - starts[at] <= size:
            end = starts[at]  # the table or code goes as a whole to the next window
            following = end
        else:
            following = _resume(text, end, overlap) if overlap else end
            at = bisect_right(starts, following) - 1
            if at >= 0 and starts[at] < following < blocks[at][1] <= end:
                following = blocks[at][1]  # not the end of a table or of code alone
        yield start, end
        start = max(following, start + 1)
    yield start, last


def _whole(text: str, first: int, last: int) -> Iterator[tuple[int, int]]:
    """The spans of tables and of code."""
    before: tuple[int, int] | None = None
    for found in _PARAGRAPH.finditer(text, first, last):
        lines = found[0].rstrip("\n").split("\n")
        signs = sum("|" in line for line in lines), sum(map(bool, map(_CODE.match, lines)))
        if (len(lines) < 2 and not lines[0][:1].isspace()) or max(signs) < 0.6 * len(lines):
            if before is not None:
                yield before
            before = None
        elif before is not None and lines[0][:1].isspace() and found.end() - before[0] <= _LARGEST:
            before = before[0], found.end()  # code goes on after a blank line
        else:
            if before is not None:
                yield before
            before = found.span()
    if before is not None:
        yield before


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
