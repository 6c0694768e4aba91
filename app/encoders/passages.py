"""Combinations of a dense and a VDR encoder (`HybridEncoder`): dense only, two models, or one shared backbone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt

from hyblink.app.core.errors import EncoderUnavailableError
from hyblink.app.core.ports.encoders import DenseEncoder, EncodedPassages, EncodedQuery
from hyblink.app.core.settings import EncodeSettings
from hyblink.app.core.types.arrays import ScoreArray, TermWeights, VectorArray
from hyblink.app.encoders.dense.backbone import Backbone, TextStates
from hyblink.app.encoders.loading.once import Once
from hyblink.app.encoders.loading.prefixes import Prefixes
from hyblink.app.encoders.runtimes.transformer import Transformer


class TokenStates(DenseEncoder, Protocol):
    """A dense encoder that also gives access to its transformer, for heads that read token states."""

    settings: EncodeSettings
    prefixes: Prefixes

    @property
    def transformer(self) -> Transformer:
        """The loaded transformer."""
        ...

    @property
    def window(self) -> int:
        """The number of tokens of a text that are read together, special tokens included."""
        ...

    def joined(self, titles: Sequence[str], texts: Sequence[str]) -> list[str]:
        """The passages' input texts: prefix, title and text."""
        ...


def token_states_of(dense: DenseEncoder) -> TokenStates:
    """The dense encoder, typed as `TokenStates`. Raises EncoderUnavailableError if it gives no token states."""
    if not hasattr(type(dense), "transformer"):  # looked up on the class, so that no model is loaded
        raise EncoderUnavailableError("the VDR encoder needs a dense model to read", received=dense.id)
    return cast("TokenStates", dense)


class VdrWeights(Protocol):
    """A loaded VDR head that reads the token states of a shared backbone."""

    def weights(self, texts: Sequence[TextStates], *, query: bool) -> list[TermWeights]:
        """Each text's sparse vector: its largest weights, and those of its own tokens."""
        ...

    def prior_idf(self, ids: npt.NDArray[np.int32]) -> ScoreArray | None:
        """The idf contained in passage weights, parallel to `ids`; None if unknown. See `HybridEncoder.prior_idf`."""
        ...


class VdrHeads(Protocol):
    """A VDR head that can be loaded for the states of a transformer."""

    def over(self, transformer: Transformer) -> VdrWeights:
        """The loaded head, for the states of `transformer`. Raises EncoderUnavailableError if it does not fit."""
        ...


class VdrTexts(Protocol):
    """A VDR encoder that is a whole model and reads texts itself."""

    def load(self) -> None:
        """Load the model now. Raises EncoderUnavailableError if it cannot be loaded."""
        ...

    def encode_query(self, text: str) -> TermWeights:
        """The query's sparse vector."""
        ...

    def encode_passages(self, titles: Sequence[str], texts: Sequence[str]) -> list[TermWeights]:
        """The passages' sparse vectors. `titles` and `texts` are parallel."""
        ...

    def prior_idf(self, ids: npt.NDArray[np.int32]) -> ScoreArray | None:
        """The idf contained in passage weights, parallel to `ids`; None if unknown. See `HybridEncoder.prior_idf`."""
        ...


class DenseOnly:
    """A `HybridEncoder` with a dense encoder and no VDR encoder."""

    def __init__(self, dense: DenseEncoder) -> None:
        self._dense = dense

    def load(self) -> None:
        self._dense.load()

    def encode_queries(self, texts: Sequence[str]) -> list[EncodedQuery]:
        return [EncodedQuery(vector) for vector in self._dense.encode_queries(texts)]

    def encode_query(self, text: str) -> EncodedQuery:
        return EncodedQuery(self._dense.encode_query(text))

    def encode_passages(self, titles: Sequence[str], texts: Sequence[str]) -> EncodedPassages:
        return EncodedPassages(self._dense.encode_passages(titles, texts))

    def prior_idf(self, ids: npt.NDArray[np.int32]) -> ScoreArray | None:  # noqa: ARG002
        return None


class DenseAndVdr:
    """A `HybridEncoder` of a dense encoder and a separate VDR model, which costs two forward passes."""

    def __init__(self, dense: DenseEncoder, vdr: VdrTexts) -> None:
        self._dense = dense
        self._vdr = vdr

    def load(self) -> None:
        self._dense.load()
        self._vdr.load()

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
    """A `HybridEncoder` of a dense model and a VDR head on its token states. One forward pass computes both."""

    def __init__(self, dense: TokenStates, vdr: VdrHeads) -> None:
        self._dense = dense
        self._vdr = vdr
        self._loaded = Once(self._opened, "the VDR head and its dense model")

    def _opened(self) -> tuple[Backbone, VdrWeights]:
        transformer, settings = self._dense.transformer, self._dense.settings
        backbone = Backbone(
            transformer, window=self._dense.window, max_tokens=settings.max_vdr_tokens, batch_size=settings.batch_size
        )
        return backbone, self._vdr.over(transformer)

    def load(self) -> None:
        self._loaded()

    def _encode(self, texts: Sequence[str], *, query: bool) -> tuple[VectorArray, list[TermWeights]]:
        backbone, head = self._loaded()
        vectors = np.empty((len(texts), self._dense.dimension), dtype=np.float32)
        weights: dict[int, TermWeights] = {}
        for group in backbone.groups(texts):
            made = head.weights([states for _, states in group], query=query)
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
        return self._loaded()[1].prior_idf(ids)
