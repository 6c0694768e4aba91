"""L2 normalisation: each score over the Euclidean norm of the candidates' scores."""

from __future__ import annotations

from hyblink.ranker.normalization.affine import SMALLEST, Affine, ScoreStats


def l2(stats: ScoreStats) -> Affine:
    """Scale the scores to a vector of length 1; all-zero scores stay 0."""
    return Affine(1.0 / stats.norm if stats.norm >= SMALLEST else 0.0, 0.0)
