"""The VDR head in torch, on the device of its transformer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError

from hyblink.app.core.errors import EncoderUnavailableError
from hyblink.app.core.types.arrays import ScoreArray, TermWeights
from hyblink.app.core.weights import heaviest
from hyblink.app.encoders.dense.backbone import TextStates
from hyblink.app.encoders.vdr.head import VdrHead
from hyblink.app.encoders.vdr.inference import QUERY_TOP_K


class TorchInference:
    """A VDR head in `folder` with the embeddings and on the device of a `TorchTransformer`."""

    def __init__(self, folder: Path, transformer: Any, *, passage_weights: int, calibrated: bool = True) -> None:
        """As `VdrInference`. Raises EncoderUnavailableError if the head is damaged or does not fit."""
        try:
            head: VdrHead = VdrHead.load(str(folder), local_files_only=True).float()
            head.tie(transformer.word_embeddings())
        except (OSError, RuntimeError, SafetensorError, TypeError, ValueError) as error:
            raise EncoderUnavailableError(f"cannot load the VDR head {folder.name!r}: {error}") from error
        self._passage_weights = passage_weights
        self._calibrated = calibrated
        self.head = head.to(transformer.model.device).eval()

    def prior_idf(self, ids: npt.NDArray[np.int32]) -> ScoreArray | None:
        """The idf of tokens in a calibrated lexical part, parallel to `ids`; None if there is none."""
        if not (self.head.lexical and self._calibrated):
            return None
        prior: ScoreArray = self.head.idf.detach()[np.maximum(ids - self.head.shift, 0)].float().cpu().numpy()
        return prior

    def weights(self, texts: Sequence[TextStates], *, query: bool) -> list[TermWeights]:
        """As `VdrInference.weights`."""
        head = self.head
        with torch.inference_mode():
            weights_BV, bag_BV = head.embed(features_of(texts, head.usable.device), "query" if query else "document")
            weights_BV, bag_BV = weights_BV.float().cpu(), bag_BV.cpu() > 0
        limit = QUERY_TOP_K if query else self._passage_weights
        return [_kept(row, bag, limit, head.shift) for row, bag in zip(weights_BV, bag_BV, strict=True)]


def _kept(weights_V: torch.Tensor, bag_V: torch.Tensor, limit: int, shift: int) -> TermWeights:
    """The weights of the text's own tokens and the largest other ones: `limit` in all, or all own tokens if more."""
    own = int(bag_V.sum())
    first_V = weights_V + bag_V * (1 + float(weights_V.max()))  # rank the text's own tokens before all others
    ids = first_V.topk(min(max(limit, own), len(weights_V))).indices.sort().values
    terms = TermWeights((ids + shift).numpy().astype(np.int32), weights_V[ids].numpy())
    return heaviest(terms, len(terms))


def features_of(texts: Sequence[TextStates], device: Any = "cpu") -> dict[str, Any]:
    """The padded input tensors of a head: `token_embeddings` (B, L, H), `input_ids` and `attention_mask` (B, L)."""
    longest = max(len(text.ids_L) for text in texts)
    hidden = texts[0].states_LH.shape[1]
    states_BLH = torch.zeros(len(texts), longest, hidden)
    ids_BL = torch.zeros(len(texts), longest, dtype=torch.int64)
    mask_BL = torch.zeros(len(texts), longest, dtype=torch.int64)
    for row, text in enumerate(texts):
        n = len(text.ids_L)
        states_BLH[row, :n] = torch.from_numpy(np.asarray(text.states_LH, dtype=np.float32))
        ids_BL[row, :n] = torch.from_numpy(text.ids_L.astype(np.int64))
        mask_BL[row, :n] = 1
    return {
        "token_embeddings": states_BLH.to(device),
        "input_ids": ids_BL.to(device),
        "attention_mask": mask_BL.to(device),
    }
