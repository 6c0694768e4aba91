"""Inverse square rank (Mourão, Martins & Magalhães 2015): votes times the sum over signals of w / rank²."""

from __future__ import annotations

import numpy as np

from hyblink.ranker.fusion.inputs import Floats, FusionInput


def isr(scores: FusionInput) -> Floats:
    """Contributions votes * w_s / rank_s²; a signal votes where its raw score is above 0; shape (S, C)."""
    used = scores.present_SC & (scores.weights_S > 0)[:, None]
    votes = (used & (np.nan_to_num(scores.raw_SC) > 0)).sum(axis=0)
    return np.where(used, votes * scores.weights_S[:, None] / np.square(scores.ranks_SC), 0.0)
