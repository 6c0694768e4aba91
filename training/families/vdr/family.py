"""The VDR family (Zhou et al. 2024): term weights over the model's vocabulary, from a head or a whole encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, cast

from hyblink.app.encoders.loading.adapters import VDR_HEAD
from hyblink.training.families.base import Inputs
from hyblink.training.families.dense.family import RetrieverFamily
from hyblink.training.run_config import RunConfig

if TYPE_CHECKING:
    from hyblink.training.families.vdr.trainable import VdrTrainable
from hyblink.training.families.vdr.config import VdrConfig


class VdrFamily(RetrieverFamily):
    """VDR heads on a frozen backbone (`tuning` head) and whole VDR encoders (full, lora)."""

    kind = "vdr"
    config: ClassVar[type[RunConfig]] = VdrConfig
    losses = ("vdr", "svdr", "nll", "margin_mse")
    tunings = ("full", "lora", "head")

    def supports_init_from(self, config: RunConfig) -> bool:
        return config.tuning == "head"

    def trainable(self, config: RunConfig, inputs: Inputs, beside: Any = None) -> VdrTrainable:
        from hyblink.training.families.vdr.trainable import VdrTrainable

        own = cast("VdrConfig", config)
        made = VdrTrainable(own, inputs.cache, beside)
        if inputs.init_from is not None:
            made.init_from(inputs.init_from)
        if own.lexical:
            made.set_statistics(inputs.statistics)
        return made

    def artifact(self, config: RunConfig) -> str:
        return VDR_HEAD if config.tuning == "head" else "vdr"

    def manifest(self, config: RunConfig) -> dict[str, Any]:
        own = cast("VdrConfig", config)
        return {"calibrated": own.calibrated and own.lexical, "mode": "full"}
