"""L2 normalisation: each score over the Euclidean norm of the candidates' scores."""

from __future__ import annotations

from hyblink.ranker.normalization.affine import Affine, ScoreStats


def l2(stats: ScoreStats) -> Affine:
    """The scores become a unit vector; zero stays zero."""
    return Affine(1.0 / stats.norm if stats.norm > 0 else 0.0, 0.0)
