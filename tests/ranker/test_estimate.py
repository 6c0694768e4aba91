"""Estimates of missing scores: against a regression written out, and what they must never do."""

from __future__ import annotations

import numpy as np
import pytest

from hyblink.app.core.types.ranking import RankingProfile, Signal
from hyblink.ranker.complete import CompleteScores, fuse
from hyblink.ranker.estimate import estimated
from hyblink.ranker.explain import ESTIMATED, ledger

SIGNALS = (Signal.BM25, Signal.VDR, Signal.DENSE)


def scores(bm25: list[float], dense: list[float], proposed: set[int] | None = None) -> CompleteScores:
    """Candidates 0, 1, …, of which `proposed` (by default all) were proposed by BM25."""
    rows = np.arange(len(bm25))
    ranks = {row: at + 1 for at, row in enumerate(sorted(set(rows.tolist()) if proposed is None else proposed))}
    return CompleteScores((Signal.BM25, Signal.DENSE), rows, np.array([bm25, dense]), (ranks, {}))


def test_a_missing_score_is_the_ridge_regression_on_the_other_signal() -> None:
    bm25, dense = [1.0, 2.0, 3.0, 4.0, 6.0], [0.1, 0.2, 0.2, 0.4, np.nan]
    z = (np.array(bm25) - np.mean(bm25)) / np.std(bm25)
    own, target = z[:4] - z[:4].mean(), np.array(dense[:4])
    prior = 0.5 * target.std()
    slope = prior + (own @ (target - target.mean() - own * prior)) / (own @ own + 20.0)
    expected = min(target.mean() + (z[4] - z[:4].mean()) * slope, 0.4)
    assert estimated(scores(bm25, dense))[1, 4] == pytest.approx(expected)


def test_known_scores_stay_and_estimates_lie_within_them() -> None:
    rng = np.random.default_rng(3)
    raw = rng.gamma(1.0, 3.0, size=(3, 60))
    raw[2, 20:] = np.nan
    raw[1, 5] = 0.0
    found = estimated(CompleteScores(SIGNALS, np.arange(60), raw, ({n: n + 1 for n in range(60)}, {}, {})))
    assert np.array_equal(found[:, :20], raw[:, :20])
    assert np.array_equal(found[:2], raw[:2])
    assert raw[2, :20].min() <= found[2].min()
    assert found[2].max() <= raw[2, :20].max()
    assert np.isnan(raw[2, 20:]).all(), "the true scores are not changed"


def test_candidates_that_the_signal_alone_proposed_do_not_raise_the_estimate() -> None:
    """They are there for their high scores, whatever their words are."""
    bm25 = [3.0, 1.0, 2.0, 3.0, 4.0, 0.0, 0.0]

    def estimate(alone: list[float], proposed: set[int] | None) -> float:
        dense = [np.nan, 0.1, 0.2, 0.3, 0.4, *alone]
        return float(estimated(scores(bm25, dense, proposed))[1, 0])

    by_words = {0, 1, 2, 3, 4}
    assert estimate([0.9, 0.8], by_words) == pytest.approx(estimate([0.5, 0.6], by_words))
    assert estimate([0.9, 0.8], None) != pytest.approx(estimate([0.5, 0.6], None))


def test_of_two_that_wait_the_one_with_more_words_stays_ahead() -> None:
    filled = estimated(scores([5.0, 3.0, 1.0, 2.0], [np.nan, np.nan, 0.1, 0.3]))
    assert filled[1, 0] >= filled[1, 1] > 0.1


@pytest.mark.parametrize(
    ("bm25", "dense"), [([1.0, 2.0], [np.nan, np.nan]), ([2.0, 2.0], [0.5, np.nan]), ([np.nan, 2.0], [0.5, np.nan])]
)
def test_nothing_is_estimated_where_nothing_is_known(bm25: list[float], dense: list[float]) -> None:
    raw = scores(bm25, dense)
    assert np.array_equal(estimated(raw), raw.raw_SC, equal_nan=True)


def test_the_ledger_says_that_a_line_is_estimated_and_still_adds_up() -> None:
    raw = scores([5.0, 3.0, 1.0, 2.0], [np.nan, 0.4, 0.1, 0.3])
    profile = RankingProfile(weights={Signal.BM25: 0.5, Signal.DENSE: 0.5})
    fused = fuse(raw, profile, estimated(raw))
    lines = ledger(fused, 0, profile)
    assert [line.note for line in lines] == ["", ESTIMATED]
    assert lines[1].raw is None
    assert lines[1].contribution == pytest.approx(0.5 * lines[1].normalised)
    assert sum(line.contribution for line in lines) == pytest.approx(fused.scores_C[0])
