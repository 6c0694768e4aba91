"""Weighted sum, the convex combination of Bruch, Gai & Ingber (2023): sum over signals of w * normalised score."""

from __future__ import annotations

import numpy as np

from hyblink.ranker.fusion.inputs import Floats, FusionInput


def weighted_sum(scores: FusionInput) -> Floats:
    """Contributions w_s * normalised_s; shape (S, C)."""
    return np.where(scores.present_SC, scores.weights_S[:, None] * scores.normalised_SC, 0.0)
