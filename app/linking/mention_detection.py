"""Mention detection: one port for the dictionary, a trained span head and spaCy, and the union of any of them."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from app.core.linking import Mention, apart

Detection = Callable[[str], list[Mention]]
"""The mentions of a text, in order."""

DETECTORS = ("dictionary", "elq", "spacy:PIPELINE")
_JOINER = "\u200d"


class SpanDetector(Protocol):
    """Finds mentions in a text."""

    @property
    def id(self) -> str: ...

    def detect(self, text: str) -> list[Mention]:
        """Mentions in order, none overlapping another; offsets are code points."""
        ...


@runtime_checkable
class JointDetector(Protocol):
    """A detector whose scores are probabilities, so that links can decide which of its spans are mentions."""

    def possible(self, text: str, floor: float) -> list[Mention]:
        """All spans of at least this probability in order of the text, overlapping ones too."""
        ...


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
