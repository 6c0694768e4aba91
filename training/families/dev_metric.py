"""The dev metric: MRR@10."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from hyblink.training.data.rows import TrainingRow

DEV_CUTOFF = 10


def reciprocal_rank(scores_QP: torch.Tensor, gold_QP: torch.Tensor) -> float:
    """Mean reciprocal rank of the first relevant passage, 0 for ranks over `DEV_CUTOFF`. Ties count in its favour.

    `scores_QP` and the Boolean `gold_QP` have shape (queries, passages).
    """
    best_Q = scores_QP.masked_fill(~gold_QP, -torch.inf).amax(dim=1, keepdim=True)
    rank_Q = (scores_QP > best_Q).sum(dim=1) + 1
    return float(torch.where(rank_Q <= DEV_CUTOFF, 1.0 / rank_Q, torch.zeros(())).mean())


def mean_reciprocal_rank(rows: Sequence[TrainingRow], scores: Callable[[str, Sequence[str]], torch.Tensor]) -> float:
    """MRR@10 where each query ranks its own positives and negatives only.

    `scores` takes a query and N passages and returns their scores, shape (N,).
    """
    values = []
    for row in rows:
        scores_N = scores(row.query, [item.joined for item in (*row.positives, *row.negatives)])
        gold_N = torch.zeros(len(scores_N), dtype=torch.bool, device=scores_N.device)
        gold_N[: len(row.positives)] = True
        values.append(reciprocal_rank(scores_N[None], gold_N[None]))
    return float(np.mean(values))
