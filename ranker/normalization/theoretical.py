"""Theoretical min-max (Bruch, Gai & Ingber 2023, "TMM"): (s - lower bound) / (max - lower bound).

The lower bound is the one that the signal's formula allows, not the one that happens to be among the candidates:
0 for BM25, VDR weights and probabilities, -1 for the inner product of unit vectors. A candidate's value then does
not depend on how bad the worst candidate is.
"""

from __future__ import annotations

from hyblink.app.core.types.ranking import Signal
from hyblink.ranker.normalization.affine import Affine, ScoreStats

LOWER_BOUND = {Signal.BM25: 0.0, Signal.VDR: 0.0, Signal.DENSE: -1.0, Signal.PRIOR: 0.0, Signal.ENTITY: 0.0}


def theoretical(stats: ScoreStats) -> Affine:
    """Maps [lower bound, best candidate] onto [0, 1]."""
    low = LOWER_BOUND[stats.signal]
    width = stats.maximum - low
    return Affine(1.0 / width, -low / width) if width > 0 else Affine(0.0, 0.0)
