"""Paired significance tests between two systems."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hyblink.app.evaluation.measures import SystemResult

_PERMUTATIONS = 10_000
_BATCH = 1000
"""Permutations computed at once, which bounds memory."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A paired comparison: the difference of means, and p-values of a two-sided t-test and a randomisation test."""

    system: str
    baseline: str
    difference: float
    p_t_test: float
    p_randomisation: float


def compare(system: SystemResult, baseline: SystemResult, measure_name: str = "nDCG@10", seed: int = 0) -> Comparison:
    """Compare two systems on the same queries with paired tests (Smucker, Allan & Carterette 2007)."""
    from scipy.stats import permutation_test, ttest_rel

    queries = sorted(system.per_query)
    ours = np.array([system.per_query[q][measure_name] for q in queries])
    theirs = np.array([baseline.per_query[q][measure_name] for q in queries])
    delta = ours - theirs
    if not delta.any():
        return Comparison(system.name, baseline.name, 0.0, 1.0, 1.0)
    randomised = permutation_test(
        (ours, theirs),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=_PERMUTATIONS,
        batch=_BATCH,
        rng=np.random.default_rng(seed),
    )
    p_t = float(ttest_rel(ours, theirs).pvalue)
    return Comparison(system.name, baseline.name, float(delta.mean()), p_t, float(randomised.pvalue))
