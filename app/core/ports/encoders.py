"""Ports of all models: dense and sparse encoders, rerankers, mention encoders, mention detectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from hyblink.app.core.types.arrays import ScoreArray, TermWeights, TokenIdf, VectorArray
from hyblink.app.core.types.linking import Mention, MentionContext
from hyblink.app.core.types.ranking import TokenContribution

MIXED_COSINE = 0.9999
"""Vectors of two runtimes may be mixed in one collection if each text's two vectors have at least this cosine."""


class DenseEncoder(Protocol):
    """Encodes text as dense vectors. Queries and passages have separate methods because their prefixes differ."""

    @property
    def id(self) -> str:
        """Identifies model, weights and precision. One index holds vectors of one id only."""
        ...

    @property
    def dimension(self) -> int:
        """The number of dimensions of the vectors."""
        ...

    def load(self) -> None:
        """Load the model now, if it is not. Raises EncoderUnavailableError if it cannot be loaded."""
        ...

    def encode_query(self, text: str) -> VectorArray:
        """The vector of one query, shape (dimension,)."""
        ...

    def encode_queries(self, texts: Sequence[str]) -> VectorArray:
        """The vectors of many queries in one batch, shape (n, dimension)."""
        ...

    def encode_passages(self, titles: Sequence[str], texts: Sequence[str]) -> VectorArray:
        """The vectors of passages, shape (n, dimension). `titles` and `texts` are parallel; a title may be empty."""
        ...


@dataclass(frozen=True, slots=True)
class EncodedPassages:
    """The encodings of N passages: dense vectors, shape (N, D), and VDR weights.

    `weights` has one entry per passage, or is empty if the generation has no VDR encoder.
    """

    vectors_ND: VectorArray
    weights: tuple[TermWeights, ...] = ()


@dataclass(frozen=True, slots=True)
class EncodedQuery:
    """A query's dense vector, shape (D,), and its VDR weights before pruning; None without a VDR encoder."""

    vector_D: VectorArray
    weights: TermWeights | None = None


class HybridEncoder(Protocol):
    """A generation's dense and VDR encoders together. If they share a backbone, one forward pass computes both."""

    def load(self) -> None:
        """Load the models now, if they are not. Raises EncoderUnavailableError if one cannot be loaded."""
        ...

    def encode_query(self, text: str) -> EncodedQuery:
        """The dense vector and VDR weights of one query."""
        ...

    def encode_queries(self, texts: Sequence[str]) -> list[EncodedQuery]:
        """The dense vectors and VDR weights of many queries, in their order."""
        ...

    def encode_passages(self, titles: Sequence[str], texts: Sequence[str]) -> EncodedPassages:
        """The dense vectors and VDR weights of passages. `titles` and `texts` are parallel."""
        ...

    def prior_idf(self, ids: npt.NDArray[np.int32]) -> ScoreArray | None:
        """The idf that the VDR encoder's passage weights already contain for the given tokens, parallel to `ids`.

        The caller uses it to replace this idf by the collection's own. None if the encoder knows no such idf.
        """
        ...


class CrossEncoder(Protocol):
    """The reranker: scores (query, passage) pairs. It is slower and more accurate than first-stage retrieval."""

    @property
    def id(self) -> str: ...

    def load(self) -> None:
        """Load the model now, if it is not. Raises EncoderUnavailableError if it fails."""
        ...

    def score(
        self, query: str, passages: Sequence[tuple[str, str]], deadline: float, idf: TokenIdf | None = None
    ) -> ScoreArray:
        """One score for each (title, text) pair, shape (n,); larger is better.

        Passages are scored in the given order. Those not reached before `deadline`, a value of `time.perf_counter()`,
        get NaN. `idf` is the collection's idf of the query's tokens, used by models that weight query tokens. Raises
        EncoderUnavailableError if the model cannot be loaded. The first call waits for it.
        """
        ...

    def contributions(
        self, query: str, title: str, text: str, idf: TokenIdf | None = None
    ) -> tuple[TokenContribution, ...]:
        """Each query token's part of the score. The parts sum to the score. Empty if the model cannot tell."""
        ...


class MentionEncoder(Protocol):
    """Encodes mentions with their contexts into the vector space of a knowledge base's entities (Wu et al. 2020)."""

    @property
    def id(self) -> str: ...

    @property
    def base(self) -> str:
        """The name of the dense model that encodes the entities."""
        ...

    def fits(self, dense_id: str) -> bool:
        """Whether its vectors are in the space of the dense encoder with this id."""
        ...

    def encode(self, mentions: Sequence[MentionContext]) -> VectorArray:
        """The vectors of mentions, shape (n, dimension), L2-normalised."""
        ...


@runtime_checkable
class InTextEncoder(Protocol):
    """A mention encoder that reads a text once and encodes all its mentions in place (Li et al. 2020)."""

    @property
    def id(self) -> str: ...

    @property
    def base(self) -> str:
        """The name of the dense model that encodes the entities."""
        ...

    def fits(self, dense_id: str) -> bool:
        """Whether its vectors are in the space of the dense encoder with this id."""
        ...

    def encode_spans(self, items: Sequence[tuple[str, int, int]]) -> VectorArray:
        """The vectors of spans (text, start, end), shape (n, dimension), L2-normalised. Offsets are code points."""
        ...


class EntityCross(Protocol):
    """The cross-encoder of entity linking: scores pairs of a mention in context and a candidate entity."""

    @property
    def id(self) -> str: ...

    def load(self) -> None:
        """Load the model. Raises EncoderUnavailableError if it fails."""
        ...

    def score(
        self, mentions: Sequence[MentionContext], entities: Sequence[Sequence[tuple[str, str]]], deadline: float
    ) -> list[ScoreArray]:
        """For each mention one score per candidate entity (title, description); larger is better.

        A mention not reached before `deadline`, a value of `time.perf_counter()`, has NaN for all its candidates.
        Raises EncoderUnavailableError if the model cannot be loaded. The first call waits for it.
        """
        ...


class BagEncoder(Protocol):
    """Turns text into its bag of tokens over the VDR vocabulary. It needs a tokenizer only, no model."""

    @property
    def id(self) -> str:
        """Identifies the vocabulary. Term weights of one index are over one vocabulary."""
        ...

    def encode_passages(self, contents: Sequence[str]) -> list[TermWeights]:
        """Each passage's distinct tokens, all with weight 1."""
        ...

    def encode_query(self, text: str) -> list[int]:
        """The query's distinct token ids, ascending."""
        ...

    def token(self, token_id: int) -> str:
        """The vocabulary's string for a token id."""
        ...


class SpanDetector(Protocol):
    """Finds the mentions of entities in texts."""

    @property
    def id(self) -> str: ...

    def detect(self, texts: Sequence[str]) -> list[list[Mention]]:
        """The mentions of each text, by position and without overlaps. Offsets are in code points."""
        ...


@runtime_checkable
class JointDetector(Protocol):
    """A mention detector whose scores are probabilities, as joint detection and linking needs them."""

    def possible(self, texts: Sequence[str], floor: float) -> list[list[Mention]]:
        """All spans of each text whose probability is at least `floor`, by position, overlapping ones included."""
        ...
