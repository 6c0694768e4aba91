"""VDR's losses: two ways, and four ways between embeddings and bags (Zhou et al. 2024, eq. 6 and 9).

q and p are nothing-dropped embeddings over the vocabulary; a mask makes their sparse form, a bag their
non-parametric one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

NllLoss = Callable[[torch.Tensor], torch.Tensor]
"""From scores (Q, P) to a scalar."""


@dataclass(frozen=True, slots=True)
class VocabularyBatch:
    """One side of a batch: `weights_NV` nothing dropped, `sparse_NV` masked, `bag_NV` of zeros and ones."""

    weights_NV: torch.Tensor
    sparse_NV: torch.Tensor
    bag_NV: torch.Tensor


def vdr_loss(q: VocabularyBatch, p: VocabularyBatch, nll: NllLoss) -> torch.Tensor:
    """``½ [L(q_topk, p) + L(q_bow, p)]``."""
    return (nll(q.sparse_NV @ p.weights_NV.T) + nll(q.bag_NV @ p.weights_NV.T)) / 2


def svdr_loss(q: VocabularyBatch, p: VocabularyBatch, nll: NllLoss) -> torch.Tensor:
    """``¼ [L(q_topk, p) + L(q, p_topk) + L(q_bow, p) + L(q, p_bow)]``."""
    return (
        nll(q.sparse_NV @ p.weights_NV.T)
        + nll(q.weights_NV @ p.sparse_NV.T)
        + nll(q.bag_NV @ p.weights_NV.T)
        + nll(q.weights_NV @ p.bag_NV.T)
    ) / 4
