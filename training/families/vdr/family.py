"""VDR (Zhou et al. 2024): term weights over the model's own vocabulary, as a head on a frozen backbone or whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

from hyblink.app.core.errors import InvalidInputError
from hyblink.app.encoders.loading.adapters import VDR_HEAD
from hyblink.training.families.base import Inputs
from hyblink.training.families.dense.family import RetrieverFamily
from hyblink.training.run_config import InBatchConfig, RunConfig, check_not_negative

if TYPE_CHECKING:
    from hyblink.training.families.vdr.trainable import VdrTrainable


@dataclass(frozen=True, slots=True)
class VdrConfig(InBatchConfig):
    """A VDR run."""

    kind: str = "vdr"
    flops: float = 0.0
    """Weight of FLOPS regularisation."""
    contrastive_mask: float = 0.0
    """Weight of VDR's contrastive mask; 0 turns it off."""
    query_top_k: int = 64
    """Weights of a query's sparse form while training."""
    passage_top_k: int = 768
    separate_towers: bool = False
    """Queries and passages each have a tower of their own, which begin alike (not with `head`)."""
    layers: int = 0
    """Transformer layers of the head, above the backbone."""
    semantic: bool = True
    lexical: bool = False
    calibrated: bool = True
    """Replace the lexical part's idf by the collection's own: idf is then not learned (with a lexical part)."""
    project: bool = False
    own_path: bool = False
    tied_norm: bool = False

    def check(self) -> None:
        """Raises InvalidInputError for what makes no sense."""
        InBatchConfig.check(self)
        check_not_negative(self, "flops", "contrastive_mask", "layers")
        if self.separate_towers and self.tuning == "head":
            raise InvalidInputError(
                "separate towers are for whole VDR encoders", received=self.tuning, expected="full or lora"
            )
        if not (self.semantic or self.lexical):
            raise InvalidInputError("neither semantic nor lexical", expected="one of them at least")


class VdrFamily(RetrieverFamily):
    """VDR heads and encoders."""

    kind = "vdr"
    config: ClassVar[type[RunConfig]] = VdrConfig
    losses = ("vdr", "svdr", "nll", "margin_mse")
    tunings = ("full", "lora", "head")

    def goes_on(self, config: RunConfig) -> bool:
        return config.tuning == "head"

    def trainable(self, config: RunConfig, inputs: Inputs, beside: Any = None) -> VdrTrainable:
        from hyblink.training.families.vdr.trainable import VdrTrainable

        own = cast("VdrConfig", config)
        made = VdrTrainable(own, inputs.cache, beside)
        if inputs.go_on_from is not None:
            made.go_on_from(inputs.go_on_from)
        if own.lexical:
            made.set_statistics(inputs.statistics)
        return made

    def artifact(self, config: RunConfig) -> str:
        return VDR_HEAD if config.tuning == "head" else "vdr"

    def manifest(self, config: RunConfig) -> dict[str, Any]:
        own = cast("VdrConfig", config)
        return {"calibrated": own.calibrated and own.lexical, "mode": "full"}
