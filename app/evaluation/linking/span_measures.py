"""Precision, recall and F1 of spans and links, with strong (equal) or weak (overlapping) matching of spans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_STEPS = 100


@dataclass(frozen=True, slots=True)
class SpanFigures:
    """Micro precision, recall and F1."""

    precision: float
    recall: float
    f1: float


def micro(
    found: Sequence[set[tuple[int, int, str]]], gold: Sequence[set[tuple[int, int, str]]], *, weak: bool
) -> SpanFigures:
    """Return micro-averaged precision, recall and F1 over texts.

    Each text has a set of (start, end, entity id). Entities must be equal too; use "" for detection alone.
    """

    def same(item: tuple[int, int, str], other: tuple[int, int, str]) -> bool:
        if item[2] != other[2]:
            return False
        return (item[0] < other[1] and other[0] < item[1]) if weak else item[:2] == other[:2]

    right = sum(any(same(item, other) for other in b) for a, b in zip(found, gold, strict=True) for item in a)
    met = sum(any(same(item, other) for item in a) for a, b in zip(found, gold, strict=True) for other in b)
    predicted, wanted = sum(map(len, found)), sum(map(len, gold))
    precision = right / predicted if predicted else 0.0
    recall = met / wanted if wanted else 0.0
    both = precision + recall
    return SpanFigures(precision, recall, 2 * precision * recall / both if both else 0.0)


def macro(
    found: Sequence[set[tuple[int, int, str]]], gold: Sequence[set[tuple[int, int, str]]], *, weak: bool
) -> float:
    """Return the mean F1 of the texts. A text without mentions in which none was found counts as 1."""
    each = [1.0 if not a and not b else micro([a], [b], weak=weak).f1 for a, b in zip(found, gold, strict=True)]
    return sum(each) / len(each) if each else 0.0


def best_joint(
    found: Sequence[Sequence[tuple[int, int, str, float]]], gold: Sequence[set[tuple[int, int, str]]]
) -> tuple[float, float]:
    """Search the joint-probability threshold with the best micro F1 (weak, as in Li et al. 2020); return it and the F1.

    `found` has each text's links as (start, end, entity id, joint probability), without overlaps.
    """
    values = sorted({joint for own in found for *_, joint in own})
    steps = values[:: max(1, len(values) // _STEPS)]
    best = (1.0, 0.0)
    for least in steps:
        kept = [{(a, b, entity) for a, b, entity, joint in own if joint >= least} for own in found]
        f1 = micro(kept, gold, weak=True).f1
        if f1 > best[1]:
            best = (least, f1)
    return best
