"""Score normalisations, one file each under its name in the literature."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from app.core.types import NormalizationName
from ranker.normalization.affine import Affine, ScoreStats
from ranker.normalization.l2 import l2
from ranker.normalization.min_max import min_max
from ranker.normalization.none import none
from ranker.normalization.theoretical import theoretical
from ranker.normalization.z_score import z_score

NORMALIZATIONS: Mapping[NormalizationName, Callable[[ScoreStats], Affine]] = {
    "min_max": min_max,
    "z_score": z_score,
    "l2": l2,
    "theoretical": theoretical,
    "none": none,
}

__all__ = ["NORMALIZATIONS", "Affine", "ScoreStats", "l2", "min_max", "none", "theoretical", "z_score"]
