"""Choosing the cross-encoder's weight from judged queries."""

from __future__ import annotations

import numpy as np
import pytest

from hyblink.ranker.tuning import CROSS_WEIGHTS, RerankedPool, ideal_dcg, tune_cross


def pool(fused: list[float], cross: list[float], relevant: int) -> RerankedPool:
    gains = np.zeros(len(fused))
    gains[relevant] = 1.0
    return RerankedPool(np.array(fused), np.array(cross), gains, ideal_dcg({"d": 1}))


def test_a_cross_encoder_that_knows_gets_a_weight_and_one_that_does_not_gets_none() -> None:
    rng = np.random.default_rng(0)
    knows, misleads = [], []
    for _ in range(40):
        fused = np.sort(rng.normal(size=12))[::-1].tolist()
        relevant = int(rng.integers(12))
        cross = rng.normal(size=12)
        knows.append(pool(fused, np.where(np.arange(12) == relevant, 4.0, cross).tolist(), relevant))
        misleads.append(pool(fused, np.arange(12.0).tolist(), 0))
    found = tune_cross(knows)
    assert found.weight >= 1.0
    assert found.cross_validated > found.without + 0.2
    assert set(found.by_weight) == set(CROSS_WEIGHTS)
    assert found.by_weight[0.0] == pytest.approx(found.without)
    none = tune_cross(misleads)
    assert none.weight == 0.0
    assert none.cross_validated == none.without == 1.0


def test_ndcg_with_a_weight_is_that_of_the_new_order() -> None:
    # (c - min) / std = 0, 1.22, 2.45: the relevant third passes both others where 2.45 w > 1, from w = .41 on.
    found = tune_cross([pool([2.0, 1.5, 1.0], [0.0, 1.0, 2.0], 2)])
    third, first = 1 / np.log2(4), 1.0
    assert found.by_weight[0.4] == pytest.approx(third)
    assert found.by_weight[0.3] == pytest.approx(third)
    assert found.by_weight[0.5] == pytest.approx(first)
    assert set(found.by_weight.values()) == {third, first}


def test_queries_without_candidates_count_as_nothing_found() -> None:
    empty = RerankedPool(np.zeros(0), np.zeros(0), np.zeros(0), 1.0)
    found = tune_cross([empty, pool([1.0], [0.0], 0)])
    assert found.without == 0.5
