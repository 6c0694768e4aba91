"""Fusion weights of a request."""

from __future__ import annotations

import pytest

from hyblink.app.core.errors import (
    InvalidInputError,
)
from hyblink.app.core.types.ranking import Signal
from hyblink.app.search.request import check_weights


@pytest.mark.parametrize(
    "weights", [{Signal.BM25: float("nan")}, {Signal.BM25: float("inf")}, {Signal.BM25: -1.0}, {Signal.BM25: 0.0}]
)
def test_bad_weights_are_refused(weights: dict[Signal, float]) -> None:
    with pytest.raises(InvalidInputError):
        check_weights(weights)
