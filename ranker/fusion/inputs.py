"""The input of a fusion method. Shape suffixes: S signals, C candidates.

A fusion method returns contributions of shape (S, C). The score of a candidate is the sum of its column. Missing raw
scores are NaN: they contribute 0, have no rank and do not count as votes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hyblink.app.core.types.ranking import FIRST_RANK

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class FusionInput:
    """Complete scores of all candidates."""

    raw_SC: Floats
    normalised_SC: Floats
    weights_S: Floats
    rrf_k: float = 60.0

    @property
    def present_SC(self) -> npt.NDArray[np.bool_]:
        """True where a score exists, shape (S, C)."""
        return ~np.isnan(self.raw_SC)

    @property
    def ranks_SC(self) -> Floats:
        """Rank of each candidate by each signal's complete scores, from 1; equal scores share the best rank.

        NaN where the score is missing. A raw score of 0 from a signal that never goes below (no word matched) is a
        rank like any other here: complete scoring knows that it is the true score.
        """
        ranks = np.full(self.raw_SC.shape, np.nan)
        for row, scores in enumerate(self.raw_SC):
            known = ~np.isnan(scores)
            ordered = np.sort(-scores[known])
            ranks[row, known] = np.searchsorted(ordered, -scores[known], side="left") + FIRST_RANK
        return ranks
