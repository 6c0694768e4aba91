"""The configuration of a run of this family."""

from __future__ import annotations

from dataclasses import dataclass

from hyblink.app.core.errors import InvalidInputError
from hyblink.training.run_config import InBatchConfig, check_not_negative


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
