"""A VDR adapter: a VDR head that reads the token states of the dense encoder's backbone.

One forward pass then gives the dense vector and the VDR weights. The folder holds `manifest.json` (base model, mode,
checksums), `config.json` and `model.safetensors` (the head).
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hyblink.app.core.ports.encoders import DenseEncoder, HybridEncoder
from hyblink.app.core.settings import EncodeSettings
from hyblink.app.core.types.ranking import VdrMode
from hyblink.app.encoders.loading.adapters import VDR_HEAD, WEIGHTS, adapter_manifest
from hyblink.app.encoders.passages import SharedBackbone, token_states_of
from hyblink.app.encoders.runtimes.transformer import Transformer
from hyblink.app.encoders.vdr.inference import VdrInference

if TYPE_CHECKING:
    from hyblink.app.encoders.vdr.in_torch import TorchInference

DEFAULT = WEIGHTS / "vdr-minilm"


class VdrAdapter:
    """The `VdrEncoder` of a VDR head in `folder`. `passage_weights` is the number of weights kept of a passage."""

    def __init__(self, folder: Path, *, passage_weights: int) -> None:
        self.folder = folder
        self._passage_weights = passage_weights

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

    def over(self, transformer: Transformer) -> VdrInference | TorchInference:
        """The loaded head, for the states of `transformer`. Raises EncoderUnavailableError if it does not fit."""
        calibrated = bool(self.manifest.get("calibrated", False))  # checks the folder before the weights are opened
        return inference_of(self.folder, transformer, self._passage_weights, calibrated=calibrated)


def load_adapter(folder: Path, settings: EncodeSettings, dense: DenseEncoder) -> VdrAdapter:
    """The `VdrAdapter` in a folder, reading the states of `dense`. Raises EncoderUnavailableError if it gives none."""
    token_states_of(dense)
    return VdrAdapter(folder, passage_weights=settings.passage_weights)


def inference_of(
    folder: Path, transformer: Transformer, passage_weights: int, *, calibrated: bool
) -> VdrInference | TorchInference:
    """The head in a checked folder, for the states of a transformer: in torch on a GPU, else in NumPy."""
    device = getattr(getattr(transformer, "model", None), "device", None)
    if device is not None and device.type != "cpu":
        from hyblink.app.encoders.vdr.in_torch import TorchInference

        return TorchInference(folder, transformer, passage_weights=passage_weights, calibrated=calibrated)
    return VdrInference(folder, transformer.word_vectors(), passage_weights=passage_weights, calibrated=calibrated)
