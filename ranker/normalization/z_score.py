"""Z-score normalisation (Montague & Aslam 2001, ZMUV): (s - mean) / standard deviation over the candidates."""

from __future__ import annotations

from hyblink.ranker.normalization.affine import SMALLEST, Affine, ScoreStats


def z_score(stats: ScoreStats) -> Affine:
    """Scale the scores to zero mean and unit variance; equal scores all become 0."""
    if stats.deviation < SMALLEST:
        return Affine(0.0, 0.0)
    return Affine(1.0 / stats.deviation, -stats.mean / stats.deviation)
