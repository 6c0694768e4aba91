"""Paired significance tests between two systems."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hyblink.app.evaluation.measures import SystemResult

_PERMUTATIONS = 10_000


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
    from scipy.stats import ttest_rel

    queries = sorted(system.per_query)
    ours = np.array([system.per_query[q][measure_name] for q in queries])
    theirs = np.array([baseline.per_query[q][measure_name] for q in queries])
    delta = ours - theirs
    if not delta.any():
        return Comparison(system.name, baseline.name, 0.0, 1.0, 1.0)
    p_t = float(ttest_rel(ours, theirs).pvalue)
    rng = np.random.default_rng(seed)
    observed = abs(delta.mean())
    extreme = 0
    for _ in range(10):
        signs = rng.choice(np.array([-1.0, 1.0]), size=(_PERMUTATIONS // 10, len(delta)))
        extreme += int((np.abs((signs * delta).mean(axis=1)) >= observed - 1e-12).sum())
    return Comparison(system.name, baseline.name, float(delta.mean()), p_t, (extreme + 1) / (_PERMUTATIONS + 1))
