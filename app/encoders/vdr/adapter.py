"""A VDR adapter: a VDR head that reads the token states of the dense encoder's backbone.

One forward pass then gives the dense vector and the VDR weights. The folder holds `manifest.json` (base model, mode,
checksums), `config.json` and `model.safetensors` (the head).
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
from hyblink.app.core.ports.encoders import DenseEncoder, HybridEncoder
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
"""The number of weights kept of an encoded query. Searches prune it much further."""


class VdrAdapter:
    """The `VdrEncoder` of a VDR head in `folder`, loaded at the first use.

    `embeddings()` returns the backbone's word embeddings and `device()` its device. `passage_weights` is the number of
    weights kept of a passage.
    """

    def __init__(self, folder: Path, *, passage_weights: int, embeddings: Any, device: Any = lambda: "cpu") -> None:
        self.folder = folder
        self._passage_weights = passage_weights
        self._embeddings = embeddings
        self._device = device
        self._lock = threading.Lock()

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """The checked manifest. Raises EncoderUnavailableError if the folder holds no VDR head."""
        return adapter_manifest(self.folder, VDR_HEAD, "VDR", "model.safetensors")

    @property
    def base(self) -> str:
        """The name of the model whose token states the head reads."""
        return str(self.manifest["base"])

    @cached_property
    def id(self) -> str:
        digest = self.manifest["files"]["model.safetensors"]["sha256"]
        return f"vdr:{self.manifest['name']}:{digest[:12]}:{self._passage_weights}"

    @property
    def vocabulary(self) -> str:
        """Empty, because the weights are over the dense model's vocabulary."""
        return ""

    @property
    def adapter(self) -> VdrAdapter:
        """This object, because retraining trains the head further."""
        return self

    def with_dense(self, dense: DenseEncoder) -> HybridEncoder:
        """The combination with a dense encoder, in one forward pass.

        Raises EncoderUnavailableError if that encoder gives no token states.
        """
        return SharedBackbone(token_states_of(dense), self)

    @property
    def mode(self) -> VdrMode:
        return cast("VdrMode", self.manifest.get("mode", "full"))

    @cached_property
    def _head(self) -> VdrHead:
        from hyblink.app.encoders.vdr.head import VdrHead

        assert self.manifest  # reading the manifest checks the folder before the weights are opened
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
        """The loaded head, tied to the backbone's embeddings."""
        with self._lock:
            return self._head

    def prior_idf(self, ids: npt.NDArray[np.int32]) -> ScoreArray | None:
        return prior_of(self.head, ids) if self.manifest.get("calibrated", False) else None

    def weights(self, texts: Sequence[TextStates], *, query: bool) -> list[TermWeights]:
        return weights_of(self.head, texts, query=query, passage_weights=self._passage_weights)


def load_adapter(folder: Path, settings: EncodeSettings, dense: DenseEncoder) -> VdrAdapter:
    """The `VdrAdapter` in a folder, reading the states of `dense`. Raises EncoderUnavailableError if it gives none."""
    reads = token_states_of(dense)
    return VdrAdapter(
        folder,
        passage_weights=settings.passage_weights,
        embeddings=reads.input_embeddings,
        device=lambda: reads.device,
    )


def prior_of(head: VdrHead, ids: npt.NDArray[np.int32]) -> ScoreArray | None:
    """The idf of tokens in a head's lexical part, parallel to `ids`; None if it has no lexical part."""
    if not head.lexical:
        return None
    prior: ScoreArray = head.idf.detach()[np.maximum(ids - head.shift, 0)].float().cpu().numpy()
    return prior


def weights_of(head: VdrHead, texts: Sequence[TextStates], *, query: bool, passage_weights: int) -> list[TermWeights]:
    """The sparse vectors of texts by a head, pruned to the largest weights and those of each text's own tokens.

    A query keeps at most `_QUERY_TOP_K` weights, a passage `passage_weights`, or all its own tokens if these are more.
    """
    import torch

    with torch.inference_mode():
        made = head(features_of(texts, head.usable.device), task="query" if query else "document")
        embedding_BV = made["vocabulary_embedding"].float().cpu()
        bag_BV = made["bag"].cpu() > 0
    limit = _QUERY_TOP_K if query else passage_weights
    return [_kept(weights_V, bag_V, limit, head.shift) for weights_V, bag_V in zip(embedding_BV, bag_BV, strict=True)]


def _kept(weights_V: torch.Tensor, bag_V: torch.Tensor, limit: int, shift: int) -> TermWeights:
    """The weights of the text's own tokens and the largest other ones: `limit` in all, or all own tokens if more."""
    own = int(bag_V.sum())
    first_V = weights_V + bag_V * (1 + float(weights_V.max()))  # rank the text's own tokens before all others
    ids = first_V.topk(min(max(limit, own), len(weights_V))).indices.sort().values
    terms = TermWeights((ids + shift).numpy().astype(np.int32), weights_V[ids].numpy())
    return heaviest(terms, len(terms))


def features_of(texts: Sequence[TextStates], device: Any = "cpu") -> dict[str, Any]:
    """The padded input tensors of a head: `token_embeddings` (B, L, H), `input_ids` and `attention_mask` (B, L)."""
    import torch

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
