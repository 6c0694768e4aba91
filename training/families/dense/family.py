"""The dense family: bi-encoders with one model for queries and passages, cosine similarity (Karpukhin et al. 2020)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, cast

from hyblink.app.encoders.loading.adapters import DENSE_LORA
from hyblink.training.data.rows import TrainingRow
from hyblink.training.families.base import Family, Inputs, Say, with_negatives
from hyblink.training.load import Loaded
from hyblink.training.run_config import InBatchConfig, RunConfig

if TYPE_CHECKING:
    from hyblink.training.families.dense.trainable import DenseTrainable
from hyblink.training.families.dense.config import DenseConfig


class RetrieverFamily(Family):
    """Shared base of retrievers: trained with in-batch negatives, optionally with self-mined ones (ANCE)."""

    def mines_every(self, config: RunConfig) -> int:
        return cast("InBatchConfig", config).refresh_every

    def rows(self, config: RunConfig, loaded: Loaded, say: Say) -> tuple[RunConfig, list[TrainingRow]]:
        """As in the base class. With ANCE all rows are kept; given negatives are used only if every row has some."""
        rows = list(loaded.rows)
        if not self.mines_every(config):
            return with_negatives(config, rows, say)
        if not all(row.negatives for row in rows):
            rows = [replace(row, negatives=(), negative_scores=()) for row in rows]
            say("some rows have no negatives: until the model has mined its own, in-batch ones are learned from")
        return config, rows


class DenseFamily(RetrieverFamily):
    """Bi-encoders, trained as whole models or as LoRA adapters."""

    kind = "dense"
    config: ClassVar[type[RunConfig]] = DenseConfig
    losses = ("nll", "margin_mse")

    def trainable(self, config: RunConfig, inputs: Inputs, beside: Any = None) -> DenseTrainable[DenseConfig]:
        del beside
        from hyblink.training.families.dense.trainable import DenseTrainable

        made = DenseTrainable(cast("DenseConfig", config))
        if inputs.init_from is not None:
            made.init_from(inputs.init_from)
        return made

    def artifact(self, config: RunConfig) -> str:
        return DENSE_LORA if config.tuning == "lora" else "dense"
