"""The mention family, BLINK's bi-encoder (Wu et al. 2020): only the mention tower is trained; entities are fixed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, cast

from hyblink.app.core.errors import InvalidInputError
from hyblink.app.encoders.loading.adapters import MENTION_LORA
from hyblink.training.families.base import Family, Inputs
from hyblink.training.linking.vectors import EntityVectors
from hyblink.training.run_config import RunConfig

if TYPE_CHECKING:
    from hyblink.training.families.mention.trainable import MentionTrainable
from hyblink.training.families.mention.config import MentionConfig


class MentionFamily(Family):
    """Mention towers, trained as LoRA adapters of the encoder of the entities."""

    kind = "mention"
    config: ClassVar[type[RunConfig]] = MentionConfig
    losses = ("nll", "margin_mse")
    tunings = ("lora",)

    def check(self, config: RunConfig) -> None:
        if cast("MentionConfig", config).refresh_every:
            raise InvalidInputError(
                "only a retriever that learns from negatives can mine them", received=config.kind,
                expected="vdr or dense, negatives above 0",
            )  # fmt: skip
        super().check(config)

    def trainable(self, config: RunConfig, inputs: Inputs, beside: Any = None) -> MentionTrainable:
        del beside
        from hyblink.training.families.mention.trainable import MentionTrainable

        vectors = EntityVectors(*inputs.entities) if inputs.entities else None
        made = MentionTrainable(cast("MentionConfig", config), vectors)
        if inputs.init_from is not None:
            made.init_from(inputs.init_from)
        return made

    def artifact(self, config: RunConfig) -> str:
        del config
        return MENTION_LORA
