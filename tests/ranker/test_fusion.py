"""Fusions and normalisations, with the arithmetic spelled out."""

from __future__ import annotations

import numpy as np
import pytest

from hyblink.app.core.types.ranking import Signal
from hyblink.ranker.fusion import FUSIONS, FusionInput, comb_mnz, comb_sum, isr, rrf, weighted_sum
from hyblink.ranker.normalization import NORMALIZATIONS, ScoreStats, l2, min_max, none, theoretical, z_score

RAW = np.array([[9.0, 3.0, 0.0], [0.2, 0.8, 0.5]])
NORMALISED = np.array([[1.0, 0.5, 0.0], [0.0, 1.0, 0.5]])


def fused(weights: list[float]) -> FusionInput:
    return FusionInput(RAW, NORMALISED, np.array(weights))


def test_weighted_sum() -> None:
    total = weighted_sum(fused([0.3, 0.7])).sum(axis=0)
    assert total.tolist() == pytest.approx([0.3 * 1.0, 0.3 * 0.5 + 0.7 * 1.0, 0.7 * 0.5])


def test_rrf() -> None:
    total = rrf(fused([1.0, 1.0])).sum(axis=0)
    assert total.tolist() == pytest.approx([1 / 61 + 1 / 63, 1 / 62 + 1 / 61, 1 / 63 + 1 / 62])


def test_rrf_gives_equal_scores_the_same_rank() -> None:
    scores = FusionInput(np.array([[5.0, 5.0, 1.0]]), np.zeros((1, 3)), np.array([1.0]))
    assert rrf(scores)[0].tolist() == pytest.approx([1 / 61, 1 / 61, 1 / 63])


def test_comb_sum_ignores_weights_but_not_switched_off_signals() -> None:
    assert comb_sum(fused([0.1, 0.9])).sum(axis=0).tolist() == pytest.approx([1.0, 1.5, 0.5])
    assert comb_sum(fused([1.0, 0.0])).sum(axis=0).tolist() == pytest.approx([1.0, 0.5, 0.0])


def test_comb_mnz_counts_signals_that_gave_something() -> None:
    # Candidate 0: both gave something (9, 0.2); candidate 2: only the second did (0, 0.5).
    assert comb_mnz(fused([1.0, 1.0])).sum(axis=0).tolist() == pytest.approx([2 * 1.0, 2 * 1.5, 1 * 0.5])


def test_isr() -> None:
    expected = [2 * (1 / 1 + 1 / 9), 2 * (1 / 4 + 1 / 1), 1 * (1 / 9 + 1 / 4)]
    assert isr(fused([1.0, 1.0])).sum(axis=0).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("name", list(FUSIONS))
def test_a_missing_score_contributes_nothing(name: str) -> None:
    raw = np.array([[4.0, 2.0], [np.nan, 0.5]])
    contributions = FUSIONS[name](FusionInput(raw, raw.copy(), np.array([1.0, 1.0])))  # type: ignore[index]
    assert contributions[1, 0] == 0.0
    assert np.isfinite(contributions).all()


SCORES = np.array([1.0, 3.0, 2.0])
STATS = ScoreStats.of(Signal.BM25, SCORES)


def test_min_max() -> None:
    assert min_max(STATS)(SCORES).tolist() == pytest.approx([0.0, 1.0, 0.5])


def test_z_score() -> None:
    deviation = np.sqrt(2 / 3)
    assert z_score(STATS)(SCORES).tolist() == pytest.approx([-1 / deviation, 1 / deviation, 0.0])


def test_l2() -> None:
    assert l2(STATS)(SCORES).tolist() == pytest.approx([1 / 14**0.5, 3 / 14**0.5, 2 / 14**0.5])


def test_theoretical_uses_the_bound_of_the_formula() -> None:
    assert theoretical(STATS)(SCORES).tolist() == pytest.approx([1 / 3, 1.0, 2 / 3])
    cosines = np.array([0.5, -0.5])
    stats = ScoreStats.of(Signal.DENSE, cosines)
    assert theoretical(stats)(cosines).tolist() == pytest.approx([(0.5 + 1) / 1.5, (-0.5 + 1) / 1.5])


def test_none() -> None:
    assert none(STATS)(SCORES).tolist() == SCORES.tolist()


@pytest.mark.parametrize("name", list(NORMALIZATIONS))
@pytest.mark.parametrize("scores", [[], [2.0], [2.0, 2.0], [0.0, 0.0], [np.nan, 1.0], [np.nan]])
def test_degenerate_candidates_stay_finite(name: str, scores: list[float]) -> None:
    raw = np.array(scores)
    values = NORMALIZATIONS[name](ScoreStats.of(Signal.VDR, raw))(raw)  # type: ignore[index]
    assert np.isfinite(values[~np.isnan(raw)]).all()
