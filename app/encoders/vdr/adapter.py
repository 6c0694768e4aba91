"""A VDR head as a small folder beside a backbone that others use too.

`manifest.json` (what it reads, what it does best, checksums), `config.json` and `model.safetensors` (the head).

The head reads the backbone's token states, so one forward pass gives the dense vector and the VDR weights.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError

from hyblink.app.core.errors import EncoderUnavailableError
from hyblink.app.core.ports.encoders import DenseEncoder, FullEncoder
from hyblink.app.core.settings import EncodeSettings
from hyblink.app.core.types.arrays import ScoreArray, TermWeights
from hyblink.app.core.types.ranking import VdrMode
from hyblink.app.core.weights import heaviest
from hyblink.app.encoders.dense.backbone import TextStates
from hyblink.app.encoders.loading.adapters import VDR_HEAD, WEIGHTS, adapter_manifest
from hyblink.app.encoders.passages import SharedBackbone, token_states_of

if TYPE_CHECKING:
    import torch

    from hyblink.app.encoders.vdr.head import VdrHead

DEFAULT = WEIGHTS / "vdr-minilm"
_QUERY_TOP_K = 256
"""Weights of a query before pruning; searches take far fewer."""


class VdrAdapter:
    """A head in `folder` over the states of the model whose embeddings `embeddings` gives. Loaded at the first use."""

    def __init__(self, folder: Path, *, passage_weights: int, embeddings: Any, device: Any = lambda: "cpu") -> None:
        self.folder = folder
        self._passage_weights = passage_weights
        self._embeddings = embeddings
        self._device = device
        self._lock = threading.Lock()

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """The checked manifest. Raises EncoderUnavailableError where the folder holds no VDR head."""
        return adapter_manifest(self.folder, VDR_HEAD, "VDR", "model.safetensors")

    @property
    def base(self) -> str:
        """The model whose states it reads."""
        return str(self.manifest["base"])

    @cached_property
    def id(self) -> str:
        digest = self.manifest["files"]["model.safetensors"]["sha256"]
        return f"vdr:{self.manifest['name']}:{digest[:12]}:{self._passage_weights}"

    @property
    def vocabulary(self) -> str:
        """Empty: its weights are over the dense model's."""
        return ""

    @property
    def adapter(self) -> VdrAdapter:
        """Itself: a head is what retraining trains anew."""
        return self

    def with_dense(self, dense: DenseEncoder) -> FullEncoder:
        """One forward pass for both. Raises EncoderUnavailableError where there are no token states to read."""
        return SharedBackbone(token_states_of(dense), self)

    @property
    def mode(self) -> VdrMode:
        return cast("VdrMode", self.manifest.get("mode", "full"))

    @cached_property
    def _head(self) -> VdrHead:
        from hyblink.app.encoders.vdr.head import VdrHead

        assert self.manifest  # checked before anything is opened
        try:
            head: VdrHead = VdrHead.load(str(self.folder), local_files_only=True).float()
            head.tie(self._embeddings())
        except (OSError, RuntimeError, SafetensorError, TypeError, ValueError) as error:
            raise EncoderUnavailableError(f"cannot load the VDR head {self.folder.name!r}: {error}") from error
        head.to(self._device())
        head.eval()
        return head

    @property
    def head(self) -> VdrHead:
        """The loaded head, tied to its backbone."""
        with self._lock:
            return self._head

    def prior_idf(self, ids: npt.NDArray[np.int32]) -> ScoreArray | None:
        return prior_of(self.head, ids) if self.manifest.get("calibrated", False) else None

    def weights(self, texts: Sequence[TextStates], *, query: bool) -> list[TermWeights]:
        return weights_of(self.head, texts, query=query, passage_weights=self._passage_weights)


def load_adapter(folder: Path, settings: EncodeSettings, dense: DenseEncoder) -> VdrAdapter:
    """A head that reads a dense model's token states. Raises EncoderUnavailableError where it gives none."""
    reads = token_states_of(dense)
    return VdrAdapter(
        folder,
        passage_weights=settings.passage_weights,
        embeddings=reads.input_embeddings,
        device=lambda: reads.device,
    )


def prior_of(head: VdrHead, ids: npt.NDArray[np.int32]) -> ScoreArray | None:
    """The idf in a head's lexical part for tokens; None where it has no such part."""
    if not head.lexical:
        return None
    prior: ScoreArray = head.idf.detach()[np.maximum(ids - head.shift, 0)].float().cpu().numpy()
    return prior


def weights_of(head: VdrHead, texts: Sequence[TextStates], *, query: bool, passage_weights: int) -> list[TermWeights]:
    """Texts read out by a head: each one's largest weights, and those of its own tokens."""
    import torch

    with torch.inference_mode():
        made = head(features_of(texts, head.usable.device), task="query" if query else "document")
        embedding_BV = made["vocabulary_embedding"].float().cpu()
        bag_BV = made["bag"].cpu() > 0
    limit = _QUERY_TOP_K if query else passage_weights
    return [_kept(weights_V, bag_V, limit, head.shift) for weights_V, bag_V in zip(embedding_BV, bag_BV, strict=True)]


def _kept(weights_V: torch.Tensor, bag_V: torch.Tensor, limit: int, shift: int) -> TermWeights:
    """The text's own tokens, and the largest weights beside them, `limit` in all unless it has more of its own."""
    own = int(bag_V.sum())
    first_V = weights_V + bag_V * (1 + float(weights_V.max()))  # own tokens before all others
    ids = first_V.topk(min(max(limit, own), len(weights_V))).indices.sort().values
    terms = TermWeights((ids + shift).numpy().astype(np.int32), weights_V[ids].numpy())
    return heaviest(terms, len(terms))


def features_of(texts: Sequence[TextStates], device: Any = "cpu") -> dict[str, Any]:
    """What a head reads, padded: `token_embeddings` (B, L, H), `input_ids`, `attention_mask`."""
    import torch

    longest = max(len(one.ids_L) for one in texts)
    hidden = texts[0].states_LH.shape[1]
    states_BLH = torch.zeros(len(texts), longest, hidden)
    ids_BL = torch.zeros(len(texts), longest, dtype=torch.int64)
    mask_BL = torch.zeros(len(texts), longest, dtype=torch.int64)
    for row, one in enumerate(texts):
        n = len(one.ids_L)
        states_BLH[row, :n] = torch.from_numpy(np.asarray(one.states_LH, dtype=np.float32))
        ids_BL[row, :n] = torch.from_numpy(one.ids_L.astype(np.int64))
        mask_BL[row, :n] = 1
    return {
        "token_embeddings": states_BLH.to(device),
        "input_ids": ids_BL.to(device),
        "attention_mask": mask_BL.to(device),
    }
