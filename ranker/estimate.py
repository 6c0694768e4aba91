"""Estimates of missing scores: what a passage that is not encoded yet would probably score.

A missing score must neither help nor harm. Its estimate is the linear regression of the signal on the signals that
every candidate has, over candidates that were found in the same way: proposed by one of these signals. Candidates that
the incomplete signal alone proposed are left out, because they are there for its high scores.
"""

from __future__ import annotations

import numpy as np

from hyblink.ranker.complete import Bools, CompleteScores
from hyblink.ranker.fusion.inputs import Floats

_PRIOR_CORRELATION = 0.5
"""The correlation that is assumed between a signal and the mean of the others, until candidates tell."""
_PRIOR_CANDIDATES = 20.0
"""The assumption counts as much as so many candidates (the penalty of a ridge regression towards it)."""


def estimated(scores: CompleteScores) -> Floats:
    """Return `scores.raw_SC` with estimates in place of NaN, shape (S, C).

    An estimate lies within the signal's known scores. A NaN stays where the signal is known of no candidate, or where
    no signal is known of all candidates.
    """
    raw = scores.raw_SC
    missing: Bools = np.isnan(raw)
    if not missing.any():
        return raw
    complete = [at for at in range(len(raw)) if not missing[at].any() and raw[at].std() > 0]
    if not complete:
        return raw
    filled = raw.copy()
    values = raw[complete]
    standard_CF = ((values - values.mean(axis=1, keepdims=True)) / values.std(axis=1, keepdims=True)).T
    found: Bools = np.zeros(raw.shape[1], dtype=np.bool_)
    for at in complete:
        found |= np.isin(scores.rows, list(scores.leg_ranks[at]))
    for at in range(len(raw)):
        known = ~missing[at]
        if known.all() or not known.any():
            continue
        alike = known & found
        filled[at, ~known] = _predicted(standard_CF, raw[at], alike if alike.any() else known, ~known)
        filled[at] = np.clip(filled[at], raw[at, known].min(), raw[at, known].max())
    return filled


def _predicted(features_CF: Floats, target_C: Floats, fitted: Bools, wanted: Bools) -> Floats:
    """Ridge regression of `target_C` on the features over `fitted`, towards the assumed correlation; for `wanted`."""
    own, target = features_CF[fitted], target_C[fitted]
    spread = target.std()
    centre, mean = own.mean(axis=0), target.mean()
    size = features_CF.shape[1]
    assumed = np.full(size, _PRIOR_CORRELATION * spread / size)
    residual = target - mean - (own - centre) @ assumed
    gram = (own - centre).T @ (own - centre) + _PRIOR_CANDIDATES * np.eye(size)
    slope = assumed + np.linalg.solve(gram, (own - centre).T @ residual)
    predicted: Floats = mean + (features_CF[wanted] - centre) @ slope
    return predicted
