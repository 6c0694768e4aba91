"""Mention detection: one port for the dictionary, a trained span head and spaCy, and the union of any of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import regex

from hyblink.app.core.types.linking import Mention, apart

Detection = Callable[[str], list[Mention]]
"""The mentions of a text, in order."""

DETECTORS = ("dictionary", "elq", "spacy:PIPELINE")

_CHARACTER = regex.compile(r"\X")

_LONGEST = 256
"""Code points of one character at most: what is longer than this was made to be, and is cut."""


def union(found: Sequence[Sequence[Mention]]) -> list[Mention]:
    """The mentions of several detectors: of those that overlap the longest stays, then the surest, then the first.

    The same span found twice is named after both.
    """
    every = together(found)
    rank = {at: place for place, at in enumerate(sorted(range(len(every)), key=lambda at: _longest(every[at])))}
    kept = apart([(one.start, one.end) for one in every], [-rank[at] for at in range(len(every))])
    return [every[at] for at in kept]


def _longest(one: Mention) -> tuple[int, float, int]:
    return one.start - one.end, -one.score, one.start


def together(found: Sequence[Sequence[Mention]]) -> list[Mention]:
    """The mentions of several detectors in order of the text, each span once."""
    same: dict[tuple[int, int], Mention] = {}
    for one in (mention for own in found for mention in own):
        known = same.get((one.start, one.end))
        if known is None:
            same[one.start, one.end] = one
        elif one.detector not in known.detector.split("+"):
            score = max(known.score, one.score)
            same[one.start, one.end] = Mention(one.start, one.end, one.text, f"{known.detector}+{one.detector}", score)
    return sorted(same.values(), key=lambda m: (m.start, m.end))


def splits_a_character(text: str, at: int) -> bool:
    """Whether a boundary at this code point would cut what is read as one character (Unicode's grapheme clusters).

    >>> [splits_a_character("e\\u0301a", at) for at in (1, 2)], splits_a_character("\\U0001f1e9\\U0001f1ea", 1)
    ([True, False], True)
    """
    return _boundary(text, at)[0] < at


def whole_characters(text: str, start: int, end: int) -> tuple[int, int]:
    """A span grown to the characters that it cuts."""
    return _boundary(text, start)[0], _boundary(text, end)[1]


def _boundary(text: str, at: int) -> tuple[int, int]:
    """The character within which a boundary falls, from start to end; the boundary itself twice where it cuts none."""
    if not 0 < at < len(text) or (text[at - 1 : at + 1].isascii() and text[at - 1 : at + 1] != "\r\n"):
        return at, at
    start = at - 1
    while start > 0 and at - start < _LONGEST and not text[start].isascii():
        start -= 1  # a character begins at every one of ASCII but the second of a line's end
    if start > 0 and text[start - 1 : start + 1] == "\r\n":
        start -= 1
    for found in _CHARACTER.finditer(text, start, min(len(text), at + _LONGEST)):
        if found.end() > at:
            return (found.start(), found.end()) if found.start() < at else (at, at)
    return at, at
