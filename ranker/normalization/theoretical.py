"""Theoretical min-max (Bruch, Gai & Ingber 2023, "TMM"): (s - lower bound) / (max - lower bound).

The lower bound is the one that the signal's formula allows, not the one that happens to be among the candidates:
0 for BM25, VDR weights and probabilities, -1 for the inner product of unit vectors. A candidate's value then does
not depend on how bad the worst candidate is.
"""

from __future__ import annotations

from hyblink.app.core.errors import InvalidInputError
from hyblink.ranker.normalization.affine import SMALLEST, Affine, ScoreStats
from hyblink.ranker.signals.registry import SIGNALS


def theoretical(stats: ScoreStats) -> Affine:
    """Map [lower bound, best candidate] to [0, 1]. Raises InvalidInputError if the signal has no lower bound."""
    low = SIGNALS.of(stats.signal).lower_bound
    if low is None:
        raise InvalidInputError("the signal has no lower bound", received=stats.signal, expected="z_score")
    width = stats.maximum - low
    return Affine(1.0 / width, -low / width) if width >= SMALLEST else Affine(0.0, 0.0)
