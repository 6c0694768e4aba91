"""In-batch negative log-likelihood (Karpukhin et al. 2020, eq. 2) with temperature (Chen et al. 2020)."""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy


def in_batch_nll(
    scores_QP: torch.Tensor,
    gold_Q: torch.Tensor,
    *,
    temperature: float = 1.0,
    other_positives_QP: torch.Tensor | None = None,
    symmetric: bool = False,
    rescale: bool = False,
) -> torch.Tensor:
    """``-log softmax(scores / temperature)`` at the gold columns, mean over queries: scalar.

    All columns of other queries count as negatives, given and hard negatives too; columns that `other_positives_QP`
    marks (further relevant passages of the same query) are left out. `symmetric` adds the same from each gold passage
    to the queries; `rescale` weighs that part so that both have the same size, ``l1 + (l1 / l2).detach() · l2``.
    """
    logits_QP = scores_QP / temperature
    if other_positives_QP is not None:
        logits_QP = logits_QP.masked_fill(other_positives_QP, -torch.inf)
    forward = cross_entropy(logits_QP, gold_Q)
    if not symmetric:
        return forward
    backward = cross_entropy((scores_QP / temperature)[:, gold_Q].T, torch.arange(len(gold_Q), device=gold_Q.device))
    return forward + ((forward / backward).detach() * backward if rescale else backward)
