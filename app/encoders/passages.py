"""What raises a passage to the full tier: its dense vector and its VDR weights, by one forward pass for both."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from hyblink.app.core.errors import EncoderUnavailableError
from hyblink.app.core.ports.encoders import DenseEncoder, EncodedPassages, EncodedQuery
from hyblink.app.core.settings import EncodeSettings
from hyblink.app.core.types.arrays import ScoreArray, TermWeights, VectorArray
from hyblink.app.encoders.dense.backbone import Backbone, TextStates
from hyblink.app.encoders.loading.prefixes import Prefixes


class TokenStates(DenseEncoder, Protocol):
    """A dense encoder whose model also says something of every token."""

    settings: EncodeSettings
    prefixes: Prefixes

    @property
    def model(self) -> Any:
        """The loaded SentenceTransformer."""
        ...

    @property
    def device(self) -> str: ...

    def input_embeddings(self) -> Any:
        """The transformer's word embeddings, a torch Embedding."""
        ...

    def joined(self, titles: Sequence[str], texts: Sequence[str]) -> list[str]:
        """Passages as the model reads them."""
        ...


def token_states_of(dense: DenseEncoder) -> TokenStates:
    """The dense encoder as one that gives token states. Raises EncoderUnavailableError where it does not."""
    if not hasattr(type(dense), "input_embeddings"):  # looked up on the class, so that no model is loaded
        raise EncoderUnavailableError("the VDR encoder needs a dense model to read", received=dense.id)
    return cast("TokenStates", dense)


class VdrWeights(Protocol):
    """A VDR encoder that reads a backbone's token states."""

    def weights(self, texts: Sequence[TextStates], *, query: bool) -> list[TermWeights]:
        """Each text's weights: the largest, and those of its own tokens."""
        ...

    def prior_idf(self, ids: npt.NDArray[np.int32]) -> ScoreArray | None:
        """The idf within passages' weights; None where there is none."""
        ...


class VdrTexts(Protocol):
    """A VDR encoder that reads texts itself."""

    def encode_query(self, text: str) -> TermWeights: ...

    def encode_passages(self, titles: Sequence[str], texts: Sequence[str]) -> list[TermWeights]: ...

    def prior_idf(self, ids: npt.NDArray[np.int32]) -> ScoreArray | None:
        """The idf within passages' weights; None where there is none."""
        ...


class DenseOnly:
    """A dense encoder alone."""

    def __init__(self, dense: DenseEncoder) -> None:
        self._dense = dense

    def encode_queries(self, texts: Sequence[str]) -> list[EncodedQuery]:
        return [EncodedQuery(vector) for vector in self._dense.encode_queries(texts)]

    def encode_query(self, text: str) -> EncodedQuery:
        return EncodedQuery(self._dense.encode_query(text))

    def encode_passages(self, titles: Sequence[str], texts: Sequence[str]) -> EncodedPassages:
        return EncodedPassages(self._dense.encode_passages(titles, texts))

    def prior_idf(self, ids: npt.NDArray[np.int32]) -> ScoreArray | None:  # noqa: ARG002
        return None


class DenseAndVdr:
    """A dense encoder and a VDR model of its own: two forward passes."""

    def __init__(self, dense: DenseEncoder, vdr: VdrTexts) -> None:
        self._dense = dense
        self._vdr = vdr

    def encode_query(self, text: str) -> EncodedQuery:
        return EncodedQuery(self._dense.encode_query(text), self._vdr.encode_query(text))

    def encode_queries(self, texts: Sequence[str]) -> list[EncodedQuery]:
        vectors = self._dense.encode_queries(texts)
        return [EncodedQuery(vector, self._vdr.encode_query(text)) for vector, text in zip(vectors, texts, strict=True)]

    def encode_passages(self, titles: Sequence[str], texts: Sequence[str]) -> EncodedPassages:
        vectors = self._dense.encode_passages(titles, texts)
        return EncodedPassages(vectors, tuple(self._vdr.encode_passages(titles, texts)))

    def prior_idf(self, ids: npt.NDArray[np.int32]) -> ScoreArray | None:
        return self._vdr.prior_idf(ids)


class SharedBackbone:
    """A dense model whose token states a VDR head reads."""

    def __init__(self, dense: TokenStates, vdr: VdrWeights) -> None:
        self._dense = dense
        self._vdr = vdr
        self._lock = threading.Lock()
        self._made: Backbone | None = None

    @property
    def _backbone(self) -> Backbone:
        with self._lock:
            if self._made is None:
                settings = self._dense.settings
                self._made = Backbone(
                    self._dense.model,
                    window=settings.max_seq_tokens,
                    max_tokens=settings.max_vdr_tokens,
                    batch_size=settings.batch_size,
                )
            return self._made

    def _encode(self, texts: Sequence[str], *, query: bool) -> tuple[VectorArray, list[TermWeights]]:
        vectors = np.empty((len(texts), self._dense.dimension), dtype=np.float32)
        weights: dict[int, TermWeights] = {}
        for group in self._backbone.groups(texts):
            made = self._vdr.weights([states for _, states in group], query=query)
            for (at, states), own in zip(group, made, strict=True):
                vectors[at], weights[at] = states.vector_D, own
        return vectors, [weights[at] for at in range(len(texts))]

    def encode_query(self, text: str) -> EncodedQuery:
        vectors, weights = self._encode([self._dense.prefixes.query + text], query=True)
        return EncodedQuery(vectors[0], weights[0])

    def encode_queries(self, texts: Sequence[str]) -> list[EncodedQuery]:
        vectors, weights = self._encode([self._dense.prefixes.query + text for text in texts], query=True)
        return [EncodedQuery(vector, own) for vector, own in zip(vectors, weights, strict=True)]

    def encode_passages(self, titles: Sequence[str], texts: Sequence[str]) -> EncodedPassages:
        vectors, weights = self._encode(self._dense.joined(titles, texts), query=False)
        return EncodedPassages(vectors, tuple(weights))

    def prior_idf(self, ids: npt.NDArray[np.int32]) -> ScoreArray | None:
        return self._vdr.prior_idf(ids)
