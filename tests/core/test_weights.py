"""Rounded term weights and idf."""

from __future__ import annotations

import numpy as np
import pytest

from hyblink.app.core.weights import RELATIVE_ERROR, idf_weights, round_weights


def test_nine_significant_bits() -> None:
    values = np.random.default_rng(0).lognormal(0, 3, 10_000).astype(np.float32)
    rounded = round_weights(values)
    assert (np.abs(rounded - values) <= values * RELATIVE_ERROR).all()
    assert (round_weights(rounded) == rounded).all()
    order = np.argsort(values)
    assert (np.diff(rounded[order]) >= 0).all(), "rounding must keep the order"


def test_query_weights_are_the_idf_of_bm25() -> None:
    ids, frequency = np.array([3, 5, 7, 9], dtype=np.int32), np.array([1, 0, 2, 1])
    found = idf_weights(ids, frequency, passages=10, limit=10)
    assert found.ids.tolist() == [3, 7, 9]
    # ln(1 + 9.5 / 1.5) and ln(1 + 8.5 / 2.5), to nine bits
    assert found.weights.tolist() == pytest.approx([1.99243, 1.48160, 1.99243], rel=2**-9)
    assert idf_weights(ids, frequency, passages=10, limit=1).ids.tolist() == [3], "of equal ones the lower id stays"
