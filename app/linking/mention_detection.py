"""Mention detection: merge the mentions of several detectors (dictionary, ELQ span head, spaCy)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import regex

from hyblink.app.core.types.linking import Mention, without_overlaps

Detection = Callable[[str], list[Mention]]
"""A detector: maps a text to its mentions, in order of position."""

DETECTORS = ("dictionary", "elq", "spacy:PIPELINE")

_CHARACTER = regex.compile(r"\X")

_LONGEST = 256
"""The largest number of code points in one grapheme cluster; longer clusters are cut."""


def union(found: Sequence[Sequence[Mention]]) -> list[Mention]:
    """Merge the mentions of several detectors and remove overlaps.

    Of overlapping mentions the longest is kept, then the one with the highest score, then the first. A span found by
    several detectors is kept once, with their names joined by "+".
    """
    every = together(found)
    rank = {at: place for place, at in enumerate(sorted(range(len(every)), key=lambda at: _longest(every[at])))}
    kept = without_overlaps(
        [(mention.start, mention.end) for mention in every], [-rank[at] for at in range(len(every))]
    )
    return [every[at] for at in kept]


def _longest(mention: Mention) -> tuple[int, float, int]:
    return mention.start - mention.end, -mention.score, mention.start


def together(found: Sequence[Sequence[Mention]]) -> list[Mention]:
    """Merge the mentions of several detectors by position; equal spans are merged, overlapping ones are kept."""
    same: dict[tuple[int, int], Mention] = {}
    for item in (mention for own in found for mention in own):
        known = same.get((item.start, item.end))
        if known is None:
            same[item.start, item.end] = item
        elif item.detector not in known.detector.split("+"):
            score = max(known.score, item.score)
            same[item.start, item.end] = Mention(
                item.start, item.end, item.text, f"{known.detector}+{item.detector}", score
            )
    return sorted(same.values(), key=lambda m: (m.start, m.end))


def splits_a_character(text: str, at: int) -> bool:
    """Return whether a boundary before code point `at` would split a character (a Unicode grapheme cluster).

    >>> [splits_a_character("e\\u0301a", at) for at in (1, 2)], splits_a_character("\\U0001f1e9\\U0001f1ea", 1)
    ([True, False], True)
    """
    return _boundary(text, at)[0] < at


def whole_characters(text: str, start: int, end: int) -> tuple[int, int]:
    """Return the span, extended so that it splits no grapheme cluster."""
    return _boundary(text, start)[0], _boundary(text, end)[1]


def _boundary(text: str, at: int) -> tuple[int, int]:
    """(start, end) of the grapheme cluster that a boundary splits, or (at, at) if it splits none."""
    if not 0 < at < len(text) or (text[at - 1 : at + 1].isascii() and text[at - 1 : at + 1] != "\r\n"):
        return at, at
    start = at - 1
    while start > 0 and at - start < _LONGEST and not text[start].isascii():
        start -= 1  # every ASCII character begins a cluster, except the line feed of "\r\n"
    if start > 0 and text[start - 1 : start + 1] == "\r\n":
        start -= 1
    for found in _CHARACTER.finditer(text, start, min(len(text), at + _LONGEST)):
        if found.end() > at:
            return (found.start(), found.end()) if found.start() < at else (at, at)
    return at, at
