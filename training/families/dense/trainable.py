"""The trainable bi-encoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from hyblink.app.encoders.loading.adapters import DENSE_LORA
from hyblink.app.encoders.loading.in_torch import on_device
from hyblink.app.encoders.loading.models import root_of
from hyblink.app.encoders.loading.prefixes import prefixes_for
from hyblink.training.data.rows import Text, TrainingRow
from hyblink.training.families.adapters import files_of, save_adapter
from hyblink.training.families.backbone import OneRate, load_backbone, prepare
from hyblink.training.families.in_batch import Columns, InBatch, in_batch_loss
from hyblink.training.run_config import InBatchConfig

_Config = TypeVar("_Config", bound=InBatchConfig)


class DenseTrainable(OneRate[_Config], InBatch[_Config]):
    """A bi-encoder: a SentenceTransformer with L2-normalised vectors, so that scores are cosine similarities."""

    artifact = DENSE_LORA

    def __init__(self, config: _Config) -> None:
        self.config = config
        self.model = load_backbone(config)
        self._prefixes = prefixes_for(root_of(config.base))
        self.model[0].model = prepare(self.model[0].model, config)

    def _embed(self, texts: Sequence[str], tokens: int) -> tuple[torch.Tensor, ...]:
        self.model.max_seq_length = tokens
        features = on_device(self.model.preprocess(list(texts)), self.model.device)
        return (nn.functional.normalize(self.model(features)["sentence_embedding"].float(), dim=-1),)

    def queries(self, rows: Sequence[TrainingRow]) -> tuple[torch.Tensor, ...]:
        return self._embed([self._prefixes.query + row.query for row in rows], self.config.query_tokens)

    def passages(self, texts: Sequence[Text]) -> tuple[torch.Tensor, ...]:
        return self._embed([self._prefixes.passage + text.joined for text in texts], self.config.passage_tokens)

    def embedding(self, made: tuple[torch.Tensor, ...]) -> torch.Tensor:
        return made[0]

    def loss(self, q: tuple[torch.Tensor, ...], p: tuple[torch.Tensor, ...], batch: Columns) -> torch.Tensor:
        return in_batch_loss(self.scores(q, p), batch, self.config)

    def save(self, folder: Path) -> list[str]:
        if self.config.tuning == "lora":
            return save_adapter(self.model[0].model, self.config.base, folder)
        self.model.max_seq_length = self.config.passage_tokens
        self.model.save(str(folder), create_model_card=False)
        return files_of(folder)
