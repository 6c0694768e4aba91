"""A dense encoder that knows some queries by heart: evaluation encodes them once, in batches, for all systems."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from app.core.ports import DenseEncoder
from app.core.types import VectorArray


class _BatchEncoder(DenseEncoder, Protocol):
    def encode_queries(self, texts: Sequence[str]) -> VectorArray: ...


class CachedQueries:
    """Wraps an encoder; unknown queries go through to it."""

    def __init__(self, encoder: DenseEncoder, vectors: dict[str, VectorArray]) -> None:
        self._encoder = encoder
        self._vectors = vectors

    @classmethod
    def of(cls, encoder: _BatchEncoder, texts: Sequence[str]) -> CachedQueries:
        """Encode the texts now."""
        unique = list(dict.fromkeys(texts))
        return cls(encoder, dict(zip(unique, encoder.encode_queries(unique), strict=True)))

    @property
    def id(self) -> str:
        return self._encoder.id

    @property
    def dimension(self) -> int:
        return self._encoder.dimension

    def encode_query(self, text: str) -> VectorArray:
        known = self._vectors.get(text)
        return self._encoder.encode_query(text) if known is None else known

    def encode_passages(self, titles: Sequence[str], texts: Sequence[str]) -> VectorArray:
        return self._encoder.encode_passages(titles, texts)
