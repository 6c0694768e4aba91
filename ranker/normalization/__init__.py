"""Score normalisation methods, one module each, named as in the literature."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from hyblink.app.core.types.ranking import NormalizationName
from hyblink.ranker.normalization.affine import Affine, ScoreStats
from hyblink.ranker.normalization.l2 import l2
from hyblink.ranker.normalization.min_max import min_max
from hyblink.ranker.normalization.none import none
from hyblink.ranker.normalization.theoretical import theoretical
from hyblink.ranker.normalization.z_score import z_score

NORMALIZATIONS: Mapping[NormalizationName, Callable[[ScoreStats], Affine]] = {
    "min_max": min_max,
    "z_score": z_score,
    "l2": l2,
    "theoretical": theoretical,
    "none": none,
}

__all__ = ["NORMALIZATIONS", "Affine", "ScoreStats", "l2", "min_max", "none", "theoretical", "z_score"]
