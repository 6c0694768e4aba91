"""The trainable cross-encoder, with the losses of sentence-transformers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from hyblink.app.encoders.cross_encoder.transformer import load_cross_encoder
from hyblink.app.encoders.loading.adapters import CROSS_ENCODER_LORA
from hyblink.app.encoders.loading.in_torch import cut_layers
from hyblink.training.data.batches import Drawn
from hyblink.training.data.rows import TrainingRow
from hyblink.training.families.adapters import files_of, save_adapter
from hyblink.training.families.backbone import OneRate, device, prepare
from hyblink.training.families.cross_encoder.config import CrossEncoderConfig
from hyblink.training.families.dev_metric import mean_reciprocal_rank


class FirstStageScores(nn.Module):  # type: ignore[misc]
    """Activation that adds the (weighted) first-stage scores of the same pairs. Set `scores` before each use."""

    scores: torch.Tensor | float = 0.0

    def forward(self, scores_N: torch.Tensor) -> torch.Tensor:
        return scores_N + self.scores


class CrossEncoderTrainable(OneRate[CrossEncoderConfig]):
    """A cross-encoder with one output, trained with the losses of sentence-transformers."""

    artifact = CROSS_ENCODER_LORA

    def __init__(self, config: CrossEncoderConfig) -> None:
        from sentence_transformers.cross_encoder import losses

        self.config = config
        torch.manual_seed(config.seed)  # the output layer is initialised at random
        self.model = load_cross_encoder(config.base, device(), config.passage_tokens)
        self.layers = config.kept_layers
        cut_layers(self.model[0].model, self.layers)
        transformer = self.model[0].model
        extra = [name for name in ("pooler", "classifier") if _has(transformer, name)]
        self.model[0].model = prepare(transformer, config, extra)
        made: dict[str, Any] = {
            "listwise": partial(losses.ListNetLoss, activation_fn=FirstStageScores()),
            "lambda": losses.LambdaLoss,
            "bce": losses.BinaryCrossEntropyLoss,
            "margin_mse": losses.MarginMSELoss,
        }
        self._loss = made[config.loss](self.model)

    def backward(self, drawn: Sequence[Drawn], scale: float) -> float:
        queries = [sample.row.query for sample in drawn]
        value: torch.Tensor
        if self.config.loss in {"listwise", "lambda"}:
            documents = [[text.joined for text in sample.passages] for sample in drawn]
            if self.config.residual:
                beside = [score for sample in drawn for score in sample.teacher]
                self._loss.activation_fn.scores = self.config.residual * torch.tensor(beside, device=self.model.device)
            value = self._loss([queries, documents], [self._labels(sample) for sample in drawn])
        elif self.config.loss == "bce":
            pairs = [
                (sample.row.query, text.joined, float(n == 0))
                for sample in drawn
                for n, text in enumerate(sample.passages)
            ]
            asked, texts, labels = zip(*pairs, strict=True)
            value = self._loss([list(asked), list(texts)], torch.tensor(labels, device=self.model.device))
        else:
            margins = torch.tensor(
                [sample.teacher[0] - sample.teacher[1] for sample in drawn], device=self.model.device
            )
            value = self._loss(
                [queries, [o.positive.joined for o in drawn], [o.negatives[0].joined for o in drawn]], margins
            )
        (value * scale).backward()
        return float(value.detach())

    def _labels(self, drawn: Drawn) -> torch.Tensor:
        """The relevance labels of an example's passages, shape (N,): the positive is highest.

        For the listwise loss they are logits; with distillation, of a mixture of the gold label and the teacher.
        """
        labels = torch.zeros(len(drawn.passages))
        labels[0] = 1.0
        teacher = torch.tensor(drawn.teacher)
        if self.config.loss == "listwise":
            # ListNet takes softmax(labels). 10 puts nearly all mass on the positive; a teacher gets a share of it.
            labels[0] = 10.0
            if self.config.distil and bool(torch.isfinite(teacher).all()):
                teacher[0] += self.config.gold_bonus
                taught = torch.softmax(teacher / self.config.teacher_temperature, dim=0)
                gold = torch.zeros(len(drawn.passages))
                gold[0] = 1.0
                share = self.config.distil / (1 + self.config.distil)
                labels = torch.log(((1 - share) * gold + share * taught).clamp(min=1e-6))
        return labels.to(self.model.device)

    def metric(self, rows: Sequence[TrainingRow]) -> float:
        """MRR@10 where each query ranks its own positives and negatives."""

        def scores(query: str, passages: Sequence[str]) -> torch.Tensor:
            made = self.model.predict([(query, text) for text in passages], show_progress_bar=False)
            return torch.from_numpy(np.asarray(made))

        return mean_reciprocal_rank(rows, scores)

    def save(self, folder: Path) -> list[str]:
        if self.config.tuning == "lora":
            return save_adapter(self.model[0].model, self.config.base, folder, half=True)
        self.model.save(str(folder), create_model_card=False)
        return files_of(folder)


def _has(module: nn.Module, name: str) -> bool:
    return any(found.rpartition(".")[2] == name for found, _ in module.named_modules())
