"""Training with in-batch negatives: the step across processes, gradient caching, the loss and the dev metric.

Shapes: Q queries of this process, N passages per query (positive first), P all passages of a step (of all processes).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Generic, TypeVar

import numpy as np
import torch

from hyblink.training.data.batches import Drawn
from hyblink.training.data.rows import Text, TrainingRow
from hyblink.training.families.backbone import device
from hyblink.training.families.dev_metric import reciprocal_rank
from hyblink.training.loop.trainer import world
from hyblink.training.losses.cached import cached_backward
from hyblink.training.losses.distillation import kl_divergence, margin_mse
from hyblink.training.losses.gather import gather
from hyblink.training.losses.in_batch_nll import in_batch_nll
from hyblink.training.run_config import InBatchConfig

DEV_BATCH = 64


_Config = TypeVar("_Config", bound=InBatchConfig)


class InBatch(ABC, Generic[_Config]):
    """Shared base of bi-encoders and VDR, which are trained with in-batch negatives."""

    config: _Config

    @abstractmethod
    def queries(self, rows: Sequence[TrainingRow]) -> tuple[torch.Tensor, ...]:
        """Encode queries: a tuple of tensors, each with one row per query."""

    @abstractmethod
    def passages(self, texts: Sequence[Text]) -> tuple[torch.Tensor, ...]:
        """Encode passages: a tuple of tensors, each with one row per passage."""

    @abstractmethod
    def loss(self, q: tuple[torch.Tensor, ...], p: tuple[torch.Tensor, ...], batch: Columns) -> torch.Tensor:
        """The mean loss (scalar) of the queries of this process; `p` holds the passages of all processes."""

    @abstractmethod
    def embedding(self, made: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """The tensor of a result of `queries` or `passages` whose dot products are the scores used in search."""

    def scores(self, q: tuple[torch.Tensor, ...], p: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """The scores used in search, shape (Q, P)."""
        return self.embedding(q) @ self.embedding(p).T

    def backward(self, drawn: Sequence[Drawn], scale: float) -> float:
        """Add the gradients of `scale · loss`, with gradient caching if `mini_batch` is set; returns the loss."""
        columns = Columns.of(drawn)
        texts = [text for sample in drawn for text in sample.passages]
        if not self.config.mini_batch:
            q, p = self.queries([sample.row for sample in drawn]), self.passages(texts)
            value = self.loss(q, tuple(gather(item) for item in p), columns)
            (value * scale).backward()
            return float(value.detach())
        size, width = self.config.mini_batch, columns.width
        chunks = [drawn[at : at + size] for at in range(0, len(drawn), size)]

        def embed(chunk: int) -> tuple[torch.Tensor, ...]:
            some = chunks[chunk]
            return (*self.queries([o.row for o in some]), *self.passages([t for o in some for t in o.passages]))

        def loss(made: Sequence[tuple[torch.Tensor, ...]]) -> torch.Tensor:
            kinds = len(made[0]) // 2
            whole = tuple(torch.cat(parts) for parts in zip(*made, strict=True))
            assert len(whole[kinds]) == len(whole[0]) * width
            return self.loss(whole[:kinds], tuple(gather(item) for item in whole[kinds:]), columns) * scale

        return float(cached_backward(len(chunks), embed, loss)) / scale

    def metric(self, rows: Sequence[TrainingRow]) -> float:
        """MRR@10 where each dev query ranks the positives and negatives of all dev rows."""
        texts: dict[str, Text] = {}
        for row in rows:
            for item in (*row.positives, *row.negatives):
                texts.setdefault(item.joined, item)
        place = {joined: at for at, joined in enumerate(texts)}
        some = list(texts.values())
        p = [self.passages(some[at : at + DEV_BATCH]) for at in range(0, len(some), DEV_BATCH)]
        whole = tuple(torch.cat(parts) for parts in zip(*p, strict=True))
        values = []
        for first in range(0, len(rows), DEV_BATCH):
            part = rows[first : first + DEV_BATCH]
            scores_QP = self.scores(self.queries(part), whole).float().cpu()
            gold_QP = torch.zeros(scores_QP.shape, dtype=torch.bool)
            for at, row in enumerate(part):
                gold_QP[at, [place[positive.joined] for positive in row.positives]] = True
            values += [reciprocal_rank(scores_QP[at : at + 1], gold_QP[at : at + 1]) for at in range(len(part))]
        return float(np.mean(values))


class Columns:
    """The layout of a step's score matrix (Q, P): which columns belong to which query.

    `gold_Q` is the column of each query's positive, followed by its negatives; `width` is N. `others_QP` marks columns
    that are further positives of the query. `teacher_QN` holds teacher scores, NaN if unknown.
    """

    def __init__(self, gold_Q: torch.Tensor, width: int, others_QP: torch.Tensor, teacher_QN: torch.Tensor) -> None:
        self.gold_Q, self.width, self.others_QP, self.teacher_QN = gold_Q, width, others_QP, teacher_QN

    @classmethod
    def of(cls, drawn: Sequence[Drawn]) -> Columns:
        """The layout for the examples of this process. Raises ValueError if their numbers of passages differ."""
        widths = {len(sample.passages) for sample in drawn}
        width = max(widths)
        if len(widths) > 1:
            raise ValueError(f"queries with {sorted(widths)} passages in one step; expected as many for all")
        rank, size = world()
        first = rank * len(drawn) * width
        gold_Q = first + width * torch.arange(len(drawn))
        others_QP = torch.zeros(len(drawn), len(drawn) * width * size, dtype=torch.bool)
        for at, sample in enumerate(drawn):
            relevant = {text.joined for text in sample.row.positives}
            for place, text in enumerate(t for o in drawn for t in o.passages):
                column = first + place
                others_QP[at, column] = text.joined in relevant and column != int(gold_Q[at])
        teacher_QN = torch.tensor([sample.teacher for sample in drawn], dtype=torch.float32)
        return cls(gold_Q.to(device()), width, others_QP.to(device()), teacher_QN.to(device()))

    def own(self, scores_QP: torch.Tensor) -> torch.Tensor:
        """The scores of each query's own passages, shape (Q, N), positive first."""
        columns_QN = self.gold_Q[:, None] + torch.arange(self.width, device=scores_QP.device)[None, :]
        return scores_QP.gather(1, columns_QN)


def in_batch_loss(scores_QP: torch.Tensor, columns: Columns, config: InBatchConfig) -> torch.Tensor:
    """The loss (scalar) of a score matrix: margin-MSE, or in-batch NLL plus `distil` times the KL divergence.

    The KL divergence to the teacher is computed for queries with complete teacher scores only.
    """
    if config.loss == "margin_mse":
        return margin_mse(columns.own(scores_QP), columns.teacher_QN)
    total = in_batch_nll(
        scores_QP,
        columns.gold_Q,
        temperature=config.temperature,
        other_positives_QP=columns.others_QP,
        symmetric=config.symmetric,
    )
    taught_Q = torch.isfinite(columns.teacher_QN).all(dim=1)
    if config.distil and bool(taught_Q.any()):
        own_QN = columns.own(scores_QP)[taught_Q]
        teacher_QN = columns.teacher_QN[taught_Q].clone()
        teacher_QN[:, 0] += config.gold_bonus
        total = total + config.distil * kl_divergence(
            own_QN,
            teacher_QN,
            student_temperature=config.temperature,
            teacher_temperature=config.teacher_temperature,
        )
    return total
