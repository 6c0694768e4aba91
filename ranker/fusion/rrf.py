"""Reciprocal rank fusion (Cormack, Clarke & Büttcher 2009, eq. 1): sum over signals of w / (k + rank), k = 60."""

from __future__ import annotations

import numpy as np

from hyblink.ranker.fusion.inputs import Floats, FusionInput


def rrf(scores: FusionInput) -> Floats:
    """Contributions w_s / (k + rank_s); shape (S, C)."""
    contributions = scores.weights_S[:, None] / (scores.rrf_k + scores.ranks_SC)
    return np.where(scores.present_SC, contributions, 0.0)
