"""A family of encoders: one form of model folder, and what it is for.

A family is a folder beside this file and a row in `families.py`. The manifest of a model folder names its family, and
whoever needs the model asks the row. Parts that need torch are imported when they are called.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from hyblink.app.core.ports.encoders import DenseEncoder, FullEncoder, InTextEncoder, MentionEncoder
from hyblink.app.core.settings import EncodeSettings
from hyblink.app.core.types.arrays import ScoreArray, TokenIdf
from hyblink.app.core.types.ranking import TokenContribution, VdrMode


class PairScorer(Protocol):
    """A loaded model that scores pairs of a query and a passage. One thread at a time uses it."""

    def score(self, pairs: Sequence[tuple[str, str]], idf: TokenIdf | None) -> ScoreArray:
        """A score for each (query, passage), larger is better. `idf` is the collection's, for models that go by it."""
        ...

    def contributions(self, query: str, passage: str, idf: TokenIdf | None) -> tuple[TokenContribution, ...]:
        """What each token of the query gave to the score; empty where the model cannot say."""
        ...


class RerankerLoader(Protocol):
    """How a family's models are loaded for re-ranking."""

    @property
    def bf16_on_cpu(self) -> bool:
        """Whether bf16 is the fastest precision on CPUs that have it; elsewhere int8 is."""
        ...

    def in_torch(self, model: str, device: str, tokens: int, *, bf16: bool, batch: int) -> PairScorer:
        """The model computed by torch. Raises EncoderUnavailableError where it cannot be loaded."""
        ...

    def in_graph(self, model: str, folder: Path, tokens: int) -> PairScorer:
        """The model exported into `folder`, computed by ONNX Runtime."""
        ...


class VdrEncoder(Protocol):
    """What makes term weights, and how it stands beside a dense encoder."""

    @property
    def id(self) -> str: ...

    @property
    def mode(self) -> VdrMode:
        """What it does best."""
        ...

    @property
    def base(self) -> str:
        """The model whose token states it reads; empty where it reads texts itself."""
        ...

    @property
    def vocabulary(self) -> str:
        """The model whose vocabulary its weights are over; empty for that of the dense model."""
        ...

    @property
    def adapter(self) -> Any:
        """The `VdrAdapter` that can be trained anew on a collection; None for whole models."""
        ...

    def with_dense(self, dense: DenseEncoder) -> FullEncoder:
        """Both together. Raises EncoderUnavailableError where it cannot read what the dense encoder makes."""
        ...


@dataclass(frozen=True, slots=True)
class Graph:
    """A model as it is exported: a torch module and how its inputs and outputs are called."""

    module: Any
    kind: str
    """Of the exported folder's manifest, before `-onnx`."""
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    tokenizer: str
    """The model whose tokenizer goes with it."""
    fields: dict[str, Any] = field(default_factory=dict)
    """More for the manifest."""


@dataclass(frozen=True, slots=True)
class EncoderFamily:
    """One row: what folders of a kind are, and what loads them. A slot that is None is one that they do not fill."""

    kind: str
    """`kind` in the manifest of a folder."""
    reranker: RerankerLoader | None = None
    vdr: Callable[[Path, EncodeSettings, DenseEncoder], VdrEncoder] | None = None
    mention: Callable[[Path, EncodeSettings], MentionEncoder | InTextEncoder] | None = None
    graph: str = ""
    """`module:function` that makes a `Graph` of a model's name; empty where it cannot be exported."""
    adapts: str = ""
    """`passages` or `mentions`: what a LoRA adapter of this family encodes; empty for what is none."""

    def exported(self, model: str) -> Graph:
        """The model as it is exported."""
        module, _, function = self.graph.partition(":")
        made: Graph = getattr(import_module(module), function)(model)
        return made
