"""CombMNZ (Fox & Shaw 1994): CombSUM times the number of signals with a raw score above 0."""

from __future__ import annotations

import numpy as np

from hyblink.ranker.fusion.comb_sum import comb_sum
from hyblink.ranker.fusion.inputs import Floats, FusionInput


def comb_mnz(scores: FusionInput) -> Floats:
    """Contributions votes * normalised_s; a signal votes where its raw score is above 0; shape (S, C)."""
    used = scores.present_SC & (scores.weights_S > 0)[:, None]
    votes = (used & (np.nan_to_num(scores.raw_SC) > 0)).sum(axis=0)
    contributions: Floats = votes * comb_sum(scores)
    return contributions
