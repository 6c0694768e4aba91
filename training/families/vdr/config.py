"""The configuration of VDR training."""

from __future__ import annotations

from dataclasses import dataclass

from hyblink.app.core.errors import InvalidInputError
from hyblink.training.run_config import InBatchConfig, check_not_negative


@dataclass(frozen=True, slots=True)
class VdrConfig(InBatchConfig):
    """Options of a VDR run."""

    kind: str = "vdr"
    flops: float = 0.0
    """Weight of the FLOPS regularisation."""
    contrastive_mask: float = 0.0
    """Weight of VDR's contrastive mask; 0 turns it off."""
    query_top_k: int = 64
    """Number of weights kept in a query's sparse vector in training."""
    passage_top_k: int = 768
    """Number of weights kept in a passage's sparse vector."""
    separate_towers: bool = False
    """Use separate towers for queries and passages, initialised equally (not with `head`)."""
    layers: int = 0
    """Number of transformer layers in the head, above the backbone."""
    semantic: bool = True
    """Weigh the whole vocabulary, including terms that the text does not contain (expansion)."""
    lexical: bool = False
    """Weigh the text's own tokens: BM25 times a learned correction."""
    calibrated: bool = True
    """With a lexical part: idf is not trained, and search replaces it by the idf of the collection."""
    project: bool = False
    """Add a linear projection between token states and vocabulary embeddings."""
    own_path: bool = False
    """Add the token's own input embedding to its state."""
    tied_norm: bool = False
    """L2-normalise the vocabulary embeddings."""

    def check(self) -> None:
        """Raises InvalidInputError for invalid values."""
        InBatchConfig.check(self)
        check_not_negative(self, "flops", "contrastive_mask", "layers")
        if self.separate_towers and self.tuning == "head":
            raise InvalidInputError(
                "separate towers are for whole VDR encoders", received=self.tuning, expected="full or lora"
            )
        if not (self.semantic or self.lexical):
            raise InvalidInputError("neither semantic nor lexical", expected="one of them at least")
