"""Model families: one kind of model folder each, with the functions that load it for its purposes.

A family is a subpackage here and an entry in `families.py`. The manifest of a model folder names its family, and the
entry says how to load the model. Code that needs torch is imported only when it is called.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from hyblink.app.core.ports.encoders import DenseEncoder, HybridEncoder, InTextEncoder, MentionEncoder
from hyblink.app.core.settings import EncodeSettings
from hyblink.app.core.types.arrays import ScoreArray, TokenIdf
from hyblink.app.core.types.ranking import TokenContribution, VdrMode
from hyblink.app.encoders.graphs.precision import GraphPrecision


class PairScorer(Protocol):
    """A loaded reranker model that scores (query, passage) pairs. It is not safe to share between threads."""

    def score(self, pairs: Sequence[tuple[str, str]], idf: TokenIdf | None) -> ScoreArray:
        """One score per (query, passage), shape (n,); larger is better.

        `idf` is the collection's idf of the query's tokens, for models that use it.
        """
        ...

    def contributions(self, query: str, passage: str, idf: TokenIdf | None) -> tuple[TokenContribution, ...]:
        """Each query token's part of the score; empty if the model cannot tell."""
        ...


class RerankerLoader(Protocol):
    """Loads a family's models as rerankers."""

    def in_torch(self, model: str, device: str, tokens: int, *, bf16: bool, batch: int) -> PairScorer:
        """Load the model in torch. `tokens` is its longest input, `batch` the pairs in a forward pass.

        Raises EncoderUnavailableError if it cannot be loaded.
        """
        ...

    def in_onnx(self, model: str, settings: EncodeSettings, precision: GraphPrecision, tokens: int) -> PairScorer:
        """Load the model in ONNX Runtime. `tokens` is its longest input.

        Raises UnknownGraphError if no graph of it can be built, EncoderUnavailableError if it cannot be loaded.
        """
        ...


class VdrEncoder(Protocol):
    """A VDR encoder: either a head on a dense model's token states, or a whole model."""

    @property
    def id(self) -> str: ...

    @property
    def mode(self) -> VdrMode:
        """The mode that the encoder was trained for; `auto` resolves to it."""
        ...

    @property
    def base(self) -> str:
        """The name of the model whose token states it reads; empty for a whole model."""
        ...

    @property
    def vocabulary(self) -> str:
        """The name of the model whose vocabulary its weights are over; empty for that of the dense model."""
        ...

    @property
    def adapter(self) -> Any:
        """The `VdrAdapter` that can be trained further on a collection; None for a whole model."""
        ...

    def with_dense(self, dense: DenseEncoder) -> HybridEncoder:
        """The combination with a dense encoder. Raises EncoderUnavailableError if a head cannot read its states."""
        ...


@dataclass(frozen=True, slots=True)
class Graph:
    """A model prepared for ONNX export: a torch module with the names of its inputs and outputs."""

    module: Any
    kind: str
    """`kind` in the exported folder's manifest, without the suffix `-onnx`."""
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    tokenizer: str
    """The name of the model whose tokenizer is exported with it."""
    fields: dict[str, Any] = field(default_factory=dict)
    """Further fields of the manifest."""


@dataclass(frozen=True, slots=True)
class EncoderFamily:
    """An entry of the registry: a kind of model folder and its loaders. None means not usable for that purpose."""

    kind: str
    """`kind` in the manifest of a folder."""
    reranker: RerankerLoader | None = None
    vdr: Callable[[Path, EncodeSettings, DenseEncoder], VdrEncoder] | None = None
    mention: Callable[[Path, EncodeSettings], MentionEncoder | InTextEncoder] | None = None
    graph: str = ""
    """`module:function` that makes a `Graph` from a model's name; empty if the family cannot be exported."""
    adapts: str = ""
    """What a LoRA adapter of this family encodes, `passages` or `mentions`; empty if it is no LoRA adapter."""

    def exported(self, model: str) -> Graph:
        """The `Graph` of a model, for ONNX export."""
        module, _, function = self.graph.partition(":")
        made: Graph = getattr(import_module(module), function)(model)
        return made
