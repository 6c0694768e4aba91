"""A VDR encoder that is a whole model, separate from the dense encoder: a folder trained by `hyblink train vdr`.

It costs a second forward pass. A head on the dense model's token states (`adapter.py`) costs none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from hyblink.app.core.errors import EncoderUnavailableError
from hyblink.app.core.manifest import MANIFEST, check_manifest, read_json
from hyblink.app.core.ports.encoders import DenseEncoder, HybridEncoder
from hyblink.app.core.settings import EncodeSettings
from hyblink.app.core.types.arrays import ScoreArray, TermWeights
from hyblink.app.core.types.ranking import VdrMode
from hyblink.app.encoders.dense.backbone import Backbone
from hyblink.app.encoders.graphs.precision import GraphPrecision
from hyblink.app.encoders.graphs.weights import Source
from hyblink.app.encoders.loading.models import identity, root_of, weights_version
from hyblink.app.encoders.loading.once import Once, as_unavailable
from hyblink.app.encoders.loading.prefixes import joined, prefixes_for
from hyblink.app.encoders.loading.safety import refuse_unsafe
from hyblink.app.encoders.loading.sources import tokens_in
from hyblink.app.encoders.passages import DenseAndVdr
from hyblink.app.encoders.runtimes.choice import graph_cache
from hyblink.app.encoders.runtimes.devices import device_of
from hyblink.app.encoders.runtimes.onnx_transformer import OnnxTransformer
from hyblink.app.encoders.runtimes.open import open_in_runtime
from hyblink.app.encoders.runtimes.transformer import Transformer
from hyblink.app.encoders.vdr.adapter import inference_of
from hyblink.app.encoders.vdr.folders import module_folders
from hyblink.app.encoders.vdr.inference import VdrInference

if TYPE_CHECKING:
    from hyblink.app.encoders.vdr.in_torch import TorchInference


@dataclass(frozen=True, slots=True)
class _Tower:
    """The transformer and the head of a task."""

    backbone: Backbone
    head: VdrInference | TorchInference


class VdrModel:
    """The `VdrEncoder` of a transformer and its VDR head in `folder`. It is loaded at the first use.

    Safe to share between threads.
    """

    def __init__(self, folder: Path, settings: EncodeSettings) -> None:
        self._folder = folder
        self._settings = settings
        self._loaded = Once(self._opened, f"the VDR model {folder.name!r}")

    @cached_property
    def _manifest(self) -> dict[str, Any]:
        """The folder's checked manifest; empty if it has none. Raises EncoderUnavailableError if it is damaged."""
        with as_unavailable(f"the VDR model {self._folder.name!r} is damaged"):
            return check_manifest(self._folder) if (self._folder / MANIFEST).is_file() else {}

    @cached_property
    def id(self) -> str:
        if not (self._folder / MANIFEST).is_file():
            digest = weights_version(self._folder)
            if not digest:
                raise EncoderUnavailableError("the VDR model has no safetensors file", received=self._folder.name)
            return f"vdr:{self._folder.name}:{digest}:{self._settings.passage_weights}"
        return f"vdr:{identity(str(self._folder))}:{self._settings.passage_weights}"

    @property
    def base(self) -> str:
        """Empty, because a whole model reads texts itself."""
        return ""

    @property
    def vocabulary(self) -> str:
        """The model's own folder, which defines the vocabulary."""
        return str(self._folder)

    @property
    def adapter(self) -> None:
        """None, because whole models are not trained further on a collection."""
        return

    def with_dense(self, dense: DenseEncoder) -> HybridEncoder:
        """The combination with a dense encoder, which costs two forward passes."""
        return DenseAndVdr(dense, self)

    @property
    def mode(self) -> VdrMode:
        return cast("VdrMode", self._manifest.get("mode", "full"))

    def _opened(self) -> tuple[_Tower, _Tower]:
        """The towers of queries and passages."""
        folders = module_folders(self._folder)
        shared = folders["query"] == folders["document"]
        of_queries = self._tower(*folders["query"])
        return of_queries, of_queries if shared else self._tower(*folders["document"])

    def _tower(self, transformer: str, head: str) -> _Tower:
        refuse_unsafe(self._folder)
        own = self._folder / transformer
        made = self._transformer(own)
        config = own / "sentence_bert_config.json"
        limit = int(read_json(config).get("max_seq_length") or 0) if config.is_file() else 0
        window = min(limit or made.longest, self._settings.max_seq_tokens, made.longest)
        backbone = Backbone(
            made, window=window, max_tokens=self._settings.max_vdr_tokens, batch_size=self._settings.batch_size
        )
        return _Tower(
            backbone,
            inference_of(
                self._folder / head,
                made,
                self._settings.passage_weights,
                calibrated=bool(self._manifest.get("calibrated", False)),
            ),
        )

    def _transformer(self, folder: Path) -> Transformer:
        """A tower's transformer, in float32."""
        settings = self._settings

        def in_onnx(precision: GraphPrecision) -> Transformer:
            graph = graph_cache(settings).open(Source(folder), precision, "states")
            return OnnxTransformer(graph, tokens_in(str(folder), folder), "cls")

        def in_torch() -> Transformer:
            from hyblink.app.encoders.vdr.head import tower_in_torch

            return tower_in_torch(folder, device_of(settings))

        return open_in_runtime(str(folder), settings, "fp32", in_onnx=in_onnx, in_torch=in_torch)

    def load(self) -> None:
        """Load the model now. Raises EncoderUnavailableError if it cannot be loaded."""
        self._tower_of(query=True)

    def _tower_of(self, *, query: bool) -> _Tower:
        return self._loaded()[0 if query else 1]

    def prior_idf(self, ids: npt.NDArray[np.int32]) -> ScoreArray | None:
        """The idf contained in passage weights, parallel to `ids`; None if the model is not calibrated."""
        return self._tower_of(query=False).head.prior_idf(ids)

    def encode_query(self, text: str) -> TermWeights:
        """The query's sparse vector, pruned to its largest weights and those of its own tokens."""
        return self._encode([self._prefixes.query + text], query=True)[0]

    def encode_passages(self, titles: Sequence[str], texts: Sequence[str]) -> list[TermWeights]:
        """The passages' sparse vectors, pruned to their largest weights and those of their own tokens."""
        whole = [self._prefixes.passage + joined(title, text) for title, text in zip(titles, texts, strict=True)]
        return self._encode(whole, query=False)

    @cached_property
    def _prefixes(self) -> Any:
        return prefixes_for(root_of(str(self._folder)))

    def _encode(self, texts: Sequence[str], *, query: bool) -> list[TermWeights]:
        tower = self._tower_of(query=query)
        made: dict[int, TermWeights] = {}
        for part in tower.backbone.groups(texts):
            states = [item for _, item in part]
            weights = tower.head.weights(states, query=query)
            made |= {at: own for (at, _), own in zip(part, weights, strict=True)}
        return [made[at] for at in range(len(texts))]


def load_model(folder: Path, settings: EncodeSettings, dense: DenseEncoder) -> VdrModel:
    """The `VdrModel` in a folder. `dense` is not used."""
    del dense
    return VdrModel(folder, settings)
