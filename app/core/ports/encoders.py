"""Text to vectors, to term weights, to scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from hyblink.app.core.types.arrays import ScoreArray, TermWeights, TokenIdf, VectorArray
from hyblink.app.core.types.linking import Mention, MentionContext
from hyblink.app.core.types.ranking import TokenContribution


class DenseEncoder(Protocol):
    """Text to vectors. Queries and passages are encoded by separate methods: prefixes differ."""

    @property
    def id(self) -> str:
        """Names model, weights and precision; vectors of different ids never meet in one index."""
        ...

    @property
    def dimension(self) -> int: ...

    def encode_query(self, text: str) -> VectorArray:
        """Shape (dimension,)."""
        ...

    def encode_queries(self, texts: Sequence[str]) -> VectorArray:
        """Many queries at once, shape (n, dimension)."""
        ...

    def encode_passages(self, titles: Sequence[str], texts: Sequence[str]) -> VectorArray:
        """Shape (n, dimension)."""
        ...


@dataclass(frozen=True, slots=True)
class EncodedPassages:
    """What the full tier adds to passages: `vectors_ND`, and their VDR weights where there is such an encoder."""

    vectors_ND: VectorArray
    weights: tuple[TermWeights, ...] = ()


@dataclass(frozen=True, slots=True)
class EncodedQuery:
    """A query's dense vector, shape (D,), and its VDR weights, nothing pruned, where there is such an encoder."""

    vector_D: VectorArray
    weights: TermWeights | None = None


class FullEncoder(Protocol):
    """A generation's encoders together: where they share a backbone, one forward pass serves both."""

    def encode_query(self, text: str) -> EncodedQuery: ...

    def encode_queries(self, texts: Sequence[str]) -> list[EncodedQuery]:
        """Many queries at once."""
        ...

    def encode_passages(self, titles: Sequence[str], texts: Sequence[str]) -> EncodedPassages: ...

    def prior_idf(self, ids: npt.NDArray[np.int32]) -> ScoreArray | None:
        """The idf that VDR weights of passages hold for tokens, to be replaced by a collection's own; None for none."""
        ...


class CrossEncoder(Protocol):
    """Reads a query and a passage together: slower, and better, than comparing what was made of each alone."""

    @property
    def id(self) -> str: ...

    def load(self) -> None:
        """Be ready to score; the first call may take half a minute. Raises EncoderUnavailableError if it cannot be."""
        ...

    def score(
        self, query: str, passages: Sequence[tuple[str, str]], deadline: float, idf: TokenIdf | None = None
    ) -> ScoreArray:
        """One score for each (title, text), larger is better; NaN where `time.perf_counter()` passed the deadline.

        `idf` is the collection's: a model that weighs the query's tokens goes by it. The first are scored first. Raises
        EncoderUnavailableError where it is not ready; it does not wait for that.
        """
        ...

    def contributions(
        self, query: str, title: str, text: str, idf: TokenIdf | None = None
    ) -> tuple[TokenContribution, ...]:
        """What each token of the query gave to the score, adding up to it; empty where the model cannot say."""
        ...


class MentionEncoder(Protocol):
    """Mentions in their contexts to vectors in the space of a knowledge base's dense vectors (Wu et al. 2020)."""

    @property
    def id(self) -> str: ...

    @property
    def base(self) -> str:
        """The model whose vectors it goes with."""
        ...

    def fits(self, dense_id: str) -> bool:
        """Whether its vectors can be compared with those of a dense encoder."""
        ...

    def encode(self, mentions: Sequence[MentionContext]) -> VectorArray:
        """Shape (n, dimension), L2-normalised."""
        ...


@runtime_checkable
class InTextEncoder(Protocol):
    """Encodes mentions where they stand: a text is read once for all of them (Li et al. 2020)."""

    @property
    def id(self) -> str: ...

    @property
    def base(self) -> str:
        """The model whose vectors it goes with."""
        ...

    def fits(self, dense_id: str) -> bool:
        """Whether its vectors can be compared with those of a dense encoder."""
        ...

    def encode_spans(self, items: Sequence[tuple[str, int, int]]) -> VectorArray:
        """Vectors of (text, start, end), shape (n, dimension), L2-normalised."""
        ...


class EntityCross(Protocol):
    """Reads a mention in its context together with each candidate entity."""

    @property
    def id(self) -> str: ...

    def load(self) -> None:
        """Be ready to score. Raises EncoderUnavailableError if it cannot be."""
        ...

    def score(
        self, mentions: Sequence[MentionContext], entities: Sequence[Sequence[tuple[str, str]]], deadline: float
    ) -> list[ScoreArray]:
        """For each mention a score for each of its (title, description), NaN for all of those not reached in time.

        Raises EncoderUnavailableError where it is not ready.
        """
        ...


class BagEncoder(Protocol):
    """Text to its bag of tokens over the VDR vocabulary: the instant tier."""

    @property
    def id(self) -> str: ...

    def encode_passages(self, contents: Sequence[str]) -> list[TermWeights]: ...

    def encode_query(self, text: str) -> list[int]:
        """The query's distinct token ids, ascending."""
        ...

    def token(self, token_id: int) -> str:
        """The token as it stands in the vocabulary."""
        ...


class SpanDetector(Protocol):
    """Finds mentions in a text."""

    @property
    def id(self) -> str: ...

    def detect(self, texts: Sequence[str]) -> list[list[Mention]]:
        """Of each text the mentions in order, none overlapping another; offsets are code points."""
        ...


@runtime_checkable
class JointDetector(Protocol):
    """A detector whose scores are probabilities, so that links can decide which of its spans are mentions."""

    def possible(self, texts: Sequence[str], floor: float) -> list[list[Mention]]:
        """Of each text all spans of at least this probability in order, overlapping ones too."""
        ...
