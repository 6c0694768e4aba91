"""Complete scoring: every candidate gets the exact score of every signal.

Each signal generates different candidates. Instead of assuming 0 (or the worst score) for a candidate that a signal did
not propose, every signal scores the union of all candidates before fusion.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from hyblink.app.core.budget import carried
from hyblink.app.core.types.arrays import IdArray, ScoreArray
from hyblink.app.core.types.ranking import FIRST_RANK, RankingProfile, Scored, Signal
from hyblink.ranker.fusion import FUSIONS, FusionInput
from hyblink.ranker.fusion.inputs import Floats
from hyblink.ranker.leg import Leg
from hyblink.ranker.normalization import NORMALIZATIONS, Affine, ScoreStats

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class CompleteScores:
    """The union of all candidates with all their scores. S signals, C candidates, rows ascending.

    `raw_SC` is NaN where a signal has no score. `leg_ranks` maps rows to ranks in each signal's own result list.
    `encoded_now` are rows whose vectors were made for this search, because they are not stored yet.
    """

    signals: tuple[Signal, ...]
    rows: IdArray
    raw_SC: Floats
    leg_ranks: tuple[Mapping[int, int], ...]
    encoded_now: frozenset[int] = frozenset()


def complete(
    legs: Mapping[Signal, Leg],
    proposed: Mapping[Signal, Scored],
    extra: IdArray | None = None,
    pool: ThreadPoolExecutor | None = None,
) -> CompleteScores:
    """Score the union of the proposed candidates and `extra` rows with every signal in `proposed`.

    Scores in `proposed` are kept; a leg computes only those of other candidates. With `pool`, legs run in parallel.
    """
    signals = tuple(signal for signal in legs if signal in proposed)
    parts = [proposed[signal].rows for signal in signals] + ([extra] if extra is not None else [])
    rows = np.unique(np.concatenate(parts)) if parts else np.zeros(0, dtype=np.int64)
    raw = np.full((len(signals), len(rows)), np.nan)
    ranks = []
    missing = np.ones((len(signals), len(rows)), dtype=np.bool_)
    for at, signal in enumerate(signals):
        own = proposed[signal]
        places = np.searchsorted(rows, own.rows)
        raw[at, places] = own.scores
        missing[at, places] = False
        ranks.append({row: rank for rank, row in enumerate(own.rows.tolist(), FIRST_RANK)})
    asked: list[tuple[list[int], Bools, Callable[[], Mapping[Signal, ScoreArray]]]] = []
    for leg in {id(legs[signal]): legs[signal] for signal in signals}.values():
        of_leg = [at for at, signal in enumerate(signals) if legs[signal] is leg]
        wanted: Bools = np.asarray(missing[of_leg].any(axis=0))
        if wanted.any():
            asked.append((of_leg, wanted, partial(leg.score, rows[wanted])))
    # This thread scores the first leg, and every leg that no pool thread has started by then.
    begun = [pool.submit(carried(score)) if pool and number else None for number, (_, _, score) in enumerate(asked)]
    for (of_leg, wanted, score), future in zip(asked, begun, strict=True):
        scores = score() if future is None or future.cancel() else future.result()
        for at in of_leg:
            raw[at, wanted] = np.where(missing[at, wanted], scores[signals[at]], raw[at, wanted])
    return CompleteScores(signals, rows, raw, tuple(ranks))


@dataclass(frozen=True, slots=True)
class FusedScores:
    """Fused scores and their parts. `contributions_SC` summed over signals give `scores_C`."""

    complete: CompleteScores
    normalised_SC: Floats
    contributions_SC: Floats
    scores_C: Floats
    affine: tuple[Affine, ...]


def fuse(scores: CompleteScores, profile: RankingProfile, filled_SC: Floats | None = None) -> FusedScores:
    """Normalise each signal's scores over the candidates and fuse them with the methods and weights of the profile.

    `filled_SC` are the scores with estimates in place of missing ones. Normalisation is that of the true scores.
    """
    raw_SC = scores.raw_SC if filled_SC is None else filled_SC
    weights = np.array([float(profile.weights.get(signal, 0.0)) for signal in scores.signals])
    affine = tuple(
        NORMALIZATIONS[profile.normalization](ScoreStats.of(signal, raw))
        for signal, raw in zip(scores.signals, scores.raw_SC, strict=True)
    )
    normalised = np.array([f(raw) for f, raw in zip(affine, raw_SC, strict=True)]).reshape(raw_SC.shape)
    contributions = FUSIONS[profile.fusion](FusionInput(raw_SC, normalised, weights, profile.rrf_k))
    return FusedScores(scores, normalised, contributions, contributions.sum(axis=0), affine)
