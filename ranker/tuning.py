"""Tunes fusion weights on judged queries: grid search over the weight simplex, measured by cross-validation.

Candidates are scored completely once per query, so trying a setting needs no search. The objective is nDCG@10 (Järvelin
& Kekäläinen 2002, with gain = grade and discount log2(rank + 1), as in trec_eval).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hyblink.app.core.types.arrays import IdArray
from hyblink.app.core.types.ranking import SHIPPED_CROSS_WEIGHT, FusionName, NormalizationName, RankingProfile, Signal
from hyblink.ranker.complete import CompleteScores, fuse
from hyblink.ranker.fusion.inputs import Floats
from hyblink.ranker.rerank import normalised

CUTOFF = 10


@dataclass(frozen=True, slots=True)
class JudgedPool:
    """One query's candidates with complete scores and grades. S signals, C candidates.

    `document_C` numbers the candidates' documents; `gains_D` are those documents' grades (0 if not judged);
    `ideal` is the DCG@10 of all judged documents, found or not. Documents are numbered in the order of their ids.
    """

    scores: CompleteScores
    document_C: IdArray
    gains_D: Floats
    ideal: float


def judged_pool(scores: CompleteScores, documents: Sequence[str], grades: Mapping[str, int]) -> JudgedPool:
    """Build the pool of a query. `documents` holds the document id of each candidate, `grades` those of the qrels."""
    names = sorted(set(documents))
    number = {name: at for at, name in enumerate(names)}
    gains = np.array([max(0, grades.get(name, 0)) for name in names], dtype=np.float64)
    return JudgedPool(scores, np.array([number[d] for d in documents], dtype=np.int64), gains, ideal_dcg(grades))


def ideal_dcg(grades: Mapping[str, int]) -> float:
    """The ideal DCG@10: that of all judged documents in the best order."""
    best = sorted((grade for grade in grades.values() if grade > 0), reverse=True)[:CUTOFF]
    return float(sum(grade / np.log2(at + 2) for at, grade in enumerate(best)))


_DISCOUNT = 1.0 / np.log2(np.arange(2, CUTOFF + 2))


def ndcg(pool: JudgedPool, scores_C: Floats) -> float:
    """nDCG@10 of the documents ranked by their best candidate; ties by document id, as search orders them."""
    if pool.ideal <= 0 or not len(pool.gains_D):
        return 0.0
    best = np.full(len(pool.gains_D), -np.inf)
    np.maximum.at(best, pool.document_C, scores_C)
    order = np.lexsort((np.arange(len(best)), -best))[:CUTOFF]
    return float((pool.gains_D[order] * _DISCOUNT[: len(order)]).sum() / pool.ideal)


def _ndcg_of_each(pool: JudgedPool, profiles: Sequence[RankingProfile]) -> Floats:
    """nDCG@10 under every profile, shape (profiles,). Weighted sums with one normalisation are one matrix product."""
    values = np.zeros(len(profiles))
    if pool.ideal <= 0 or not len(pool.gains_D):
        return values
    sums: dict[NormalizationName, list[int]] = {}
    for at, profile in enumerate(profiles):
        if profile.fusion == "weighted_sum":
            sums.setdefault(profile.normalization, []).append(at)
        else:
            values[at] = ndcg(pool, fuse(pool.scores, profile).scores_C)
    by_document = np.argsort(pool.document_C, kind="stable")
    starts = np.searchsorted(pool.document_C[by_document], np.arange(len(pool.gains_D)))
    for lines in sums.values():
        fused = fuse(pool.scores, profiles[lines[0]])
        normalised_SC = np.where(np.isnan(pool.scores.raw_SC), 0.0, fused.normalised_SC)[:, by_document]
        weights_PS = np.array([[profiles[at].weights.get(s, 0.0) for s in pool.scores.signals] for at in lines])
        best_PD = np.maximum.reduceat(weights_PS @ normalised_SC, starts, axis=1)
        order_PD = np.argsort(-best_PD, axis=1, kind="stable")[:, :CUTOFF]
        gains = pool.gains_D[order_PD]
        values[lines] = (gains * _DISCOUNT[: gains.shape[1]]).sum(axis=1) / pool.ideal
    return values


def grid(signals: Sequence[Signal], step: float = 0.1) -> list[RankingProfile]:
    """The profiles to try: weighted sums on a grid over the simplex with three normalisations, and unweighted RRF."""
    units = round(1 / step)
    profiles = []
    for parts in itertools.product(range(units + 1), repeat=len(signals) - 1):
        if sum(parts) > units:
            continue
        weights = dict(zip(signals, [round(p * step, 6) for p in (*parts, units - sum(parts))], strict=True))
        names: tuple[NormalizationName, ...] = ("theoretical", "min_max", "z_score")
        profiles += [_profile("weighted_sum", name, weights) for name in names]
    profiles.append(_profile("rrf", "none", dict.fromkeys(signals, 1.0)))
    return profiles


def _profile(fusion: FusionName, normalization: NormalizationName, weights: Mapping[Signal, float]) -> RankingProfile:
    return RankingProfile(
        "tuned", 0, fusion, normalization, {Signal.CROSS: SHIPPED_CROSS_WEIGHT, **weights}, 60.0, origin="tuned"
    )


@dataclass(frozen=True, slots=True)
class Tuning:
    """The result of tuning: the best profile and mean nDCG@10 values.

    `cross_validated` is measured with settings chosen on other folds, `in_sample` with the best profile on all queries,
    `single` with each signal alone.
    """

    profile: RankingProfile
    cross_validated: float
    in_sample: float
    single: Mapping[Signal, float]
    queries: int
    folds: int
    per_query: tuple[float, ...] = ()


def tune(
    pools: Sequence[JudgedPool],
    signals: Sequence[Signal],
    *,
    folds: int = 5,
    seed: int = 0,
    step: float = 0.1,
    progress: Callable[[int], None] = lambda _: None,
) -> Tuning:
    """Choose the profile with the best mean nDCG@10 over all queries, and measure it by cross-validation.

    `step` is the grid step of weights. `per_query` in the result holds the cross-validated nDCG@10 of each query.
    """
    profiles = grid(signals, step)
    table: npt.NDArray[np.float64] = np.zeros((len(profiles), len(pools)))
    for column, pool in enumerate(pools):
        table[:, column] = _ndcg_of_each(pool, profiles)
        progress(1)
    single = {}
    for at, signal in enumerate(signals):
        own = [ndcg(pool, np.nan_to_num(pool.scores.raw_SC[at], nan=-np.inf)) for pool in pools]
        single[signal] = float(np.mean(own))
    folds = min(folds, len(pools))
    held_out = _held_out(table, folds, seed)
    best = int(table.mean(axis=1).argmax())
    return Tuning(
        profiles[best],
        float(held_out.mean()),
        float(table[best].mean()),
        single,
        len(pools),
        folds,
        tuple(held_out.tolist()),
    )


def _held_out(table: npt.NDArray[np.float64], folds: int, seed: int) -> npt.NDArray[np.float64]:
    """The value of each query under the setting that is best on the other folds. `table` is (settings, queries)."""
    fold_of = np.random.default_rng(seed).permutation(table.shape[1]) % max(folds, 1)
    held_out = np.zeros(table.shape[1])
    for fold in range(folds):
        inside = fold_of == fold
        chosen = int(table[:, ~inside].mean(axis=1).argmax()) if (~inside).any() else 0
        held_out[inside] = table[chosen, inside]
    return held_out


CROSS_WEIGHTS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 2.0, 4.0)


@dataclass(frozen=True, slots=True)
class RerankedPool:
    """The re-ranked documents of one query: fused scores, cross-encoder scores, grades; `ideal` as in `JudgedPool`."""

    fused_D: Floats
    cross_D: Floats
    gains_D: Floats
    ideal: float


@dataclass(frozen=True, slots=True)
class CrossTuning:
    """The best weight of the cross-encoder, and mean nDCG@10 without it, cross-validated, and by weight (in-sample)."""

    weight: float
    without: float
    cross_validated: float
    by_weight: Mapping[float, float]


def tune_cross(pools: Sequence[RerankedPool], *, folds: int = 5, seed: int = 0) -> CrossTuning:
    """Choose the cross-encoder's weight from `CROSS_WEIGHTS` by mean nDCG@10, and measure it by cross-validation."""
    table: npt.NDArray[np.float64] = np.zeros((len(CROSS_WEIGHTS), len(pools)))
    for column, pool in enumerate(pools):
        if pool.ideal <= 0 or not len(pool.gains_D):
            continue
        added_D = normalised(pool.cross_D)
        for line, weight in enumerate(CROSS_WEIGHTS):
            order = np.argsort(-(pool.fused_D + weight * added_D), kind="stable")[:CUTOFF]
            table[line, column] = float((pool.gains_D[order] * _DISCOUNT[: len(order)]).sum() / pool.ideal)
    means = table.mean(axis=1)
    held_out = _held_out(table, min(folds, len(pools)), seed)
    return CrossTuning(
        CROSS_WEIGHTS[int(means.argmax())],
        float(means[0]),
        float(held_out.mean()),
        dict(zip(CROSS_WEIGHTS, means.tolist(), strict=True)),
    )
