"""MRR@10 on dev rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from hyblink.training.data.rows import TrainingRow

DEV_CUTOFF = 10


def reciprocal_rank(scores_QP: torch.Tensor, gold_QP: torch.Tensor) -> float:
    """Mean over queries of 1 / rank of the first relevant passage, 0 beyond `DEV_CUTOFF`."""
    best_Q = scores_QP.masked_fill(~gold_QP, -torch.inf).amax(dim=1, keepdim=True)
    rank_Q = (scores_QP > best_Q).sum(dim=1) + 1
    return float(torch.where(rank_Q <= DEV_CUTOFF, 1.0 / rank_Q, torch.zeros(())).mean())


def mean_reciprocal_rank(rows: Sequence[TrainingRow], scores: Callable[[str, Sequence[str]], torch.Tensor]) -> float:
    """MRR@10 over each row's own positives and negatives; `scores` gives those (N,) of a query's passages."""
    values = []
    for row in rows:
        scores_N = scores(row.query, [one.joined for one in (*row.positives, *row.negatives)])
        gold_N = torch.zeros(len(scores_N), dtype=torch.bool, device=scores_N.device)
        gold_N[: len(row.positives)] = True
        values.append(reciprocal_rank(scores_N[None], gold_N[None]))
    return float(np.mean(values))
