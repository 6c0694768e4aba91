"""The cross-encoder family: models that read query and passage together and return one score."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, cast

from hyblink.app.core.errors import InvalidInputError
from hyblink.app.encoders.loading.adapters import CROSS_ENCODER, CROSS_ENCODER_LORA
from hyblink.training.data.rows import TrainingRow
from hyblink.training.families.base import Family, Inputs, Say, with_first_stage_scores, with_negatives
from hyblink.training.load import Loaded
from hyblink.training.run_config import RerankerConfig, RunConfig

if TYPE_CHECKING:
    from hyblink.training.families.cross_encoder.trainable import CrossEncoderTrainable
from hyblink.training.families.cross_encoder.config import CrossEncoderConfig


class RerankerFamily(Family):
    """Shared base of re-rankers. They need negatives and can be trained on top of first-stage scores (`residual`)."""

    def rows(self, config: RunConfig, loaded: Loaded, say: Say) -> tuple[RunConfig, list[TrainingRow]]:
        """As in the base class. Raises InvalidInputError if no row has negatives, or first-stage scores if needed."""
        config, rows = with_negatives(config, loaded.rows, say)
        rows = with_first_stage_scores(rows, cast("RerankerConfig", config).residual, say)
        if not config.negatives:
            raise InvalidInputError(
                "what re-ranks learns from negatives", received="none", expected="rows with negatives"
            )
        return config, rows

    def manifest(self, config: RunConfig) -> dict[str, Any]:
        kept = cast("RerankerConfig", config).kept_layers
        return {"layers": kept} if kept else {}


class CrossEncoderFamily(RerankerFamily):
    """Cross-encoders, trained as whole models or as LoRA adapters."""

    kind = "cross"
    config: ClassVar[type[RunConfig]] = CrossEncoderConfig
    losses = ("listwise", "bce", "lambda", "margin_mse")

    def trainable(self, config: RunConfig, inputs: Inputs, beside: Any = None) -> CrossEncoderTrainable:
        del beside
        from hyblink.training.families.cross_encoder.trainable import CrossEncoderTrainable

        made = CrossEncoderTrainable(cast("CrossEncoderConfig", config))
        if inputs.init_from is not None:
            made.init_from(inputs.init_from)
        return made

    def artifact(self, config: RunConfig) -> str:
        return CROSS_ENCODER_LORA if config.tuning == "lora" else CROSS_ENCODER
