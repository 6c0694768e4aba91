"""Evaluation on given mentions: recall@k, accuracy over all and over those whose entity was retrieved, by world."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from app.core.linking import Utility
from app.core.types import Signal
from training.linking.examples import Example
from training.linking.fit import expected_calibration_error, outcomes, probabilities, utility_of

CUTOFFS = (1, 4, 8, 10, 16, 32, 64)
_SAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Row:
    """One system's figures. `interval` is the 95 % bootstrap interval of recall@1."""

    system: str
    recall: Mapping[int, float]
    interval: tuple[float, float]
    normalised: float
    by_world: Mapping[str, float]


def leg_rank(signal: Signal) -> Callable[[Example], int | None]:
    """The rank in a signal's own list."""
    return lambda one: one.leg_ranks.get(signal)


def fused_rank(one: Example) -> int | None:
    """The rank by the fused score."""
    return one.gold + 1 if one.gold >= 0 else None


def decided_rank(utility: Utility) -> Callable[[Example], int | None]:
    """The rank by a utility."""

    def rank(one: Example) -> int | None:
        if one.gold < 0:
            return None
        total = utility_of(one, utility)
        before = (total > total[one.gold]) | ((total == total[one.gold]) & (np.arange(one.count) < one.gold))
        return int(before.sum()) + 1

    return rank


def evaluate(system: str, examples: Sequence[Example], order: Callable[[Example], int | None]) -> Row:
    """A system's figures over mentions that mean an entity of the knowledge base. Recall@1 is unnormalised accuracy."""
    judged = [one for one in examples if one.row.entity_id]
    found = [order(one) for one in judged]
    recall = {k: float(np.mean([r is not None and r <= k for r in found])) if found else 0.0 for k in CUTOFFS}
    hits = np.array([r == 1 for r in found], dtype=float)
    retrieved = [r == 1 for r in found if r is not None]
    worlds: dict[str, list[bool]] = {}
    for one, r in zip(judged, found, strict=True):
        worlds.setdefault(one.row.world, []).append(r == 1)
    return Row(
        system,
        recall,
        _interval(hits),
        float(np.mean(retrieved)) if retrieved else 0.0,
        {world: float(np.mean(own)) for world, own in sorted(worlds.items())},
    )


@dataclass(frozen=True, slots=True)
class Decision:
    """What a utility links at its threshold, over all mentions; a mention without an entity is NIL.

    `false_links` are those that are wrong or should be NIL, of all links made; `ece` is the expected calibration error.
    """

    threshold: float
    linked: float
    false_links: float
    nil_precision: float
    nil_recall: float
    ece: float


def decision(examples: Sequence[Example], utility: Utility, threshold: float) -> Decision:
    """How a utility decides examples."""
    found = outcomes(examples, utility)
    p = probabilities(found, utility)
    linked = p >= threshold
    nil = np.array([not one.row.entity_id for one in examples], dtype=bool)

    def share(
        part: np.ndarray[tuple[int], np.dtype[np.bool_]], whole: np.ndarray[tuple[int], np.dtype[np.bool_]]
    ) -> float:
        return float((part & whole).sum() / whole.sum()) if whole.any() else 0.0

    return Decision(
        threshold,
        float(linked.mean()) if len(linked) else 0.0,
        share(~found.right_N, linked),
        share(nil, ~linked),
        share(~linked, nil),
        expected_calibration_error(p, found.right_N),
    )


def _interval(hits: np.ndarray[tuple[int], np.dtype[np.float64]]) -> tuple[float, float]:
    if not len(hits):
        return (0.0, 0.0)
    rng = np.random.default_rng(0)
    means = np.array([hits[rng.integers(len(hits), size=len(hits))].mean() for _ in range(_SAMPLES)])
    low, high = np.quantile(means, [0.025, 0.975])
    return (float(low), float(high))
