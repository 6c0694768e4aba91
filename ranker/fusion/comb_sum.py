"""CombSUM (Fox & Shaw 1994): the plain sum of normalised scores; weights only switch signals off."""

from __future__ import annotations

import numpy as np

from hyblink.ranker.fusion.inputs import Floats, FusionInput


def comb_sum(scores: FusionInput) -> Floats:
    """Contributions normalised_s of every signal with a weight above 0; shape (S, C)."""
    used = scores.present_SC & (scores.weights_S > 0)[:, None]
    return np.where(used, scores.normalised_SC, 0.0)
