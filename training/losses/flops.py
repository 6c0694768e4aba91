"""FLOPS regularisation: few postings for every token, instead of a fixed top-k (Paria et al. 2020, eq. 4)."""

from __future__ import annotations

import torch
from sentence_transformers.sparse_encoder.losses import FlopsLoss


def flops(weights_BV: torch.Tensor) -> torch.Tensor:
    """``Σ_v (mean_b |w_bv|)²``: the expected products of a dot product between two texts. Scalar."""
    return FlopsLoss(None).compute_loss_from_embeddings(weights_BV)
