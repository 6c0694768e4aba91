"""Affine score normalisation: every method here has the form `normalised = scale * raw + offset`."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hyblink.app.core.types.ranking import Signal


@dataclass(frozen=True, slots=True)
class ScoreStats:
    """Statistics of one signal's scores over the candidates, without missing scores. `norm` is the Euclidean norm."""

    signal: Signal
    minimum: float
    maximum: float
    mean: float
    deviation: float
    norm: float

    @classmethod
    def of(cls, signal: Signal, scores: npt.NDArray[np.float64]) -> ScoreStats:
        """The statistics of `scores` without NaN; all zero if none is left."""
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


SMALLEST = sys.float_info.min
"""Ranges below this count as 0: their reciprocals would be infinite."""


@dataclass(frozen=True, slots=True)
class Affine:
    """The map `scale * raw + offset`."""

    scale: float
    offset: float

    def __call__(self, raw: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return self.scale * raw + self.offset
