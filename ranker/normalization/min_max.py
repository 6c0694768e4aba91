"""Min-max normalisation (Lee 1997): (s - min) / (max - min) over the candidates."""

from __future__ import annotations

from hyblink.ranker.normalization.affine import SMALLEST, Affine, ScoreStats


def min_max(stats: ScoreStats) -> Affine:
    """Map the candidates' scores to [0, 1]; equal scores all become 1."""
    width = stats.maximum - stats.minimum
    return Affine(1.0 / width, -stats.minimum / width) if width >= SMALLEST else Affine(0.0, 1.0)
