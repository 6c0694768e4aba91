"""A query cache around an encoder. Evaluation encodes all test queries once, in batches, for all compared systems."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from hyblink.app.core.ports.encoders import EncodedPassages, EncodedQuery, HybridEncoder
from hyblink.app.core.types.arrays import ScoreArray


class CachedQueries:
    """A `HybridEncoder` that returns cached encodings of known queries and passes all other calls to `encoder`."""

    def __init__(self, encoder: HybridEncoder, known: dict[str, EncodedQuery]) -> None:
        self._encoder = encoder
        self._known = known

    @classmethod
    def of(cls, encoder: HybridEncoder, texts: Sequence[str]) -> CachedQueries:
        """Encode the texts as queries now and cache the results."""
        unique = list(dict.fromkeys(texts))
        return cls(encoder, dict(zip(unique, encoder.encode_queries(unique), strict=True)))

    def load(self) -> None:
        self._encoder.load()

    def encode_query(self, text: str) -> EncodedQuery:
        known = self._known.get(text)
        return self._encoder.encode_query(text) if known is None else known

    def encode_queries(self, texts: Sequence[str]) -> list[EncodedQuery]:
        return [self.encode_query(text) for text in texts]

    def encode_passages(self, titles: Sequence[str], texts: Sequence[str]) -> EncodedPassages:
        return self._encoder.encode_passages(titles, texts)

    def prior_idf(self, ids: npt.NDArray[np.int32]) -> ScoreArray | None:
        return self._encoder.prior_idf(ids)
