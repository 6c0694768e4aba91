"""The late-interaction family (Khattab & Zaharia 2020): each query token is compared with each passage token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, cast

from hyblink.app.encoders.loading.adapters import LATE_INTERACTION
from hyblink.training.families.base import Inputs
from hyblink.training.families.cross_encoder.family import RerankerFamily
from hyblink.training.run_config import RunConfig

if TYPE_CHECKING:
    from hyblink.training.families.late_interaction.trainable import LateInteractionTrainable
from hyblink.training.families.late_interaction.config import LateInteractionConfig


class LateInteractionFamily(RerankerFamily):
    """Late-interaction heads on the frozen token states of a backbone's lower layers."""

    kind = "late"
    config: ClassVar[type[RunConfig]] = LateInteractionConfig
    losses = ("listwise",)
    tunings = ("head",)

    def supports_init_from(self, config: RunConfig) -> bool:
        del config
        return False

    def trainable(self, config: RunConfig, inputs: Inputs, beside: Any = None) -> LateInteractionTrainable:
        del beside
        from hyblink.training.families.late_interaction.trainable import LateInteractionTrainable

        made = LateInteractionTrainable(cast("LateInteractionConfig", config), inputs.cache)
        made.set_statistics(inputs.statistics)
        return made

    def artifact(self, config: RunConfig) -> str:
        del config
        return LATE_INTERACTION
