"""Mention detection: one port for the dictionary, a trained span head and spaCy, and the union of any of them."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from typing import Protocol

from app.core.linking import Mention

Detection = Callable[[str], list[Mention]]
"""The mentions of a text, in order."""

DETECTORS = ("dictionary", "elq", "spacy:MODEL")
_JOINER = "\u200d"


class SpanDetector(Protocol):
    """Finds mentions in a text."""

    @property
    def id(self) -> str: ...

    def detect(self, text: str) -> list[Mention]:
        """Mentions in order, none overlapping another; offsets are code points."""
        ...


def union(found: Sequence[Sequence[Mention]]) -> list[Mention]:
    """The mentions of several detectors: of those that overlap the longest stays, then the surest, then the first.

    The same span found twice is named after both.
    """
    same: dict[tuple[int, int], Mention] = {}
    for one in (mention for own in found for mention in own):
        known = same.get((one.start, one.end))
        if known is None:
            same[one.start, one.end] = one
        elif one.detector not in known.detector.split("+"):
            score = max(known.score, one.score)
            same[one.start, one.end] = Mention(one.start, one.end, one.text, f"{known.detector}+{one.detector}", score)
    kept: list[Mention] = []
    taken: set[int] = set()
    for one in sorted(same.values(), key=lambda m: (m.start - m.end, -m.score, m.start)):
        span = range(one.start, one.end)
        if taken.isdisjoint(span):
            taken.update(span)
            kept.append(one)
    return sorted(kept, key=lambda m: m.start)


def splits_a_character(text: str, at: int) -> bool:
    """Whether a boundary at this code point would cut what is read as one character.

    >>> splits_a_character("e\\u0301a", 1), splits_a_character("e\\u0301a", 2)
    (True, False)
    """
    if not 0 < at < len(text):
        return False
    after, before = text[at], text[at - 1]
    return (
        bool(unicodedata.combining(after))
        or unicodedata.category(after) in {"Mn", "Me"}
        or _JOINER in (after, before)
        or "\U0001f3fb" <= after <= "\U0001f3ff"
    )
