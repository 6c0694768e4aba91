"""Measures on given mentions, by world: recall@k, accuracy over all mentions and over those with a retrieved entity."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hyblink.app.core.types.linking import Utility
from hyblink.app.core.types.ranking import Signal
from hyblink.app.evaluation.linking.calibration import expected_calibration_error, outcomes, probabilities, utility_of
from hyblink.app.evaluation.linking.examples import Example

CUTOFFS = (1, 4, 8, 10, 16, 32, 64)
_BATCH = 100
"""Resamples computed at once, which bounds memory."""
_SAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Counted:
    """Measures over mentions that mean an entity (not NIL). Recall@1 is the unnormalised accuracy; `normalised` is the
    accuracy over the mentions whose entity was retrieved."""

    mentions: int
    recall: Mapping[int, float]
    normalised: float


@dataclass(frozen=True, slots=True)
class Row:
    """The measures of one system. `interval` is the 95 % bootstrap interval of recall@1. `macro_accuracy` and
    `macro_normalised` are unweighted means of the worlds' accuracies (Logeswaran et al. 2019)."""

    system: str
    mentions: int
    recall: Mapping[int, float]
    interval: tuple[float, float]
    normalised: float
    macro_accuracy: float
    macro_normalised: float
    worlds: Mapping[str, Counted]


def leg_rank(signal: Signal) -> Callable[[Example], int | None]:
    """Return a function that gives the correct entity's rank in a signal's own list; None if not retrieved."""
    return lambda item: item.leg_ranks.get(signal)


def fused_rank(example: Example) -> int | None:
    """Return the correct entity's rank (from 1) by the fused score; None if it is not a candidate."""
    return example.gold + 1 if example.gold >= 0 else None


def decided_rank(utility: Utility) -> Callable[[Example], int | None]:
    """Return a function that gives the correct entity's rank by a utility function; None if it is not a candidate."""

    def rank(example: Example) -> int | None:
        if example.gold < 0:
            return None
        total = utility_of(example, utility)
        before = (total > total[example.gold]) | (
            (total == total[example.gold]) & (np.arange(example.count) < example.gold)
        )
        return int(before.sum()) + 1

    return rank


def evaluate(system: str, examples: Sequence[Example], order: Callable[[Example], int | None]) -> Row:
    """Return a system's measures, overall and by world. `order` gives the correct entity's rank. NIL is ignored."""
    judged = [example for example in examples if example.row.entity_id]
    found = [order(item) for item in judged]
    by_world: dict[str, list[int | None]] = {}
    for item, rank in zip(judged, found, strict=True):
        by_world.setdefault(item.row.world, []).append(rank)
    overall = counted(found)
    worlds = {world: counted(own) for world, own in sorted(by_world.items())}
    return Row(
        system,
        overall.mentions,
        overall.recall,
        _interval(np.array([rank == 1 for rank in found], dtype=float)),
        overall.normalised,
        _mean([item.recall[1] for item in worlds.values()]),
        _mean([item.normalised for item in worlds.values()]),
        worlds,
    )


def counted(ranks: Sequence[int | None]) -> Counted:
    """Return the measures of mentions whose correct entities have these ranks, None if not retrieved.

    >>> found = counted([1, 3, None, 70])
    >>> found.recall[1], found.recall[4], found.recall[64], found.normalised
    (0.25, 0.5, 0.5, 0.3333333333333333)
    """
    retrieved = [rank == 1 for rank in ranks if rank is not None]
    recall = {k: _mean([rank is not None and rank <= k for rank in ranks]) for k in CUTOFFS}
    return Counted(len(ranks), recall, _mean(retrieved))


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else 0.0


@dataclass(frozen=True, slots=True)
class Decision:
    """The decisions of a utility function at a threshold, over all mentions. Mentions without an entity are NIL.

    `linked` is the share of mentions that are linked, `false_links` the share of links that are wrong or should be
    NIL, and `ece` the expected calibration error.
    """

    threshold: float
    linked: float
    false_links: float
    nil_precision: float
    nil_recall: float
    ece: float


def decision(examples: Sequence[Example], utility: Utility, threshold: float) -> Decision:
    """Measure the decisions of a utility function on examples: links are those of at least `threshold`."""
    found = outcomes(examples, utility)
    p = probabilities(found, utility)
    linked = p >= threshold
    nil = np.array([not example.row.entity_id for example in examples], dtype=bool)

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
    if len(hits) < 2:
        return (float(hits.sum()), float(hits.sum()))
    from scipy.stats import bootstrap

    found = bootstrap(
        (hits,), np.mean, n_resamples=_SAMPLES, batch=_BATCH, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    return (float(found.low), float(found.high))
