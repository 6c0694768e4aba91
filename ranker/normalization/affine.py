"""Every normalisation here is affine, `normalised = scale * raw + offset`: so a ledger can show both numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hyblink.app.core.types.ranking import Signal


@dataclass(frozen=True, slots=True)
class ScoreStats:
    """What a normalisation may know of one signal's complete scores over the candidates (missing ones left out)."""

    signal: Signal
    minimum: float
    maximum: float
    mean: float
    deviation: float
    norm: float

    @classmethod
    def of(cls, signal: Signal, scores: npt.NDArray[np.float64]) -> ScoreStats:
        """Statistics of the scores that exist; all zero where none does."""
        known = scores[~np.isnan(scores)]
        if not len(known):
            return cls(signal, 0.0, 0.0, 0.0, 0.0, 0.0)
        return cls(
            signal,
            float(known.min()),
            float(known.max()),
            float(known.mean()),
            float(known.std()),
            float(np.linalg.norm(known)),
        )


@dataclass(frozen=True, slots=True)
class Affine:
    """`scale * raw + offset`."""

    scale: float
    offset: float

    def __call__(self, raw: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return self.scale * raw + self.offset
