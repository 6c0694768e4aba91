"""A fake dense encoder at our own port."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import numpy as np

from hyblink.app.application import App
from hyblink.app.core.types.arrays import VectorArray

DIMENSION = 24


class FakeDense:
    """A dense encoder without a model: the L2-normalised sum of a fixed random vector per word."""

    id = "dense:fake:1"
    dimension = DIMENSION

    def load(self) -> None:
        """There is nothing to load."""

    def _vector(self, text: str) -> VectorArray:
        total = np.zeros(DIMENSION, dtype=np.float32)
        for word in re.findall(r"\w+", text.lower()) or ["∅"]:
            seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "little")
            total += np.random.default_rng(seed).standard_normal(DIMENSION).astype(np.float32)
        return total / max(float(np.linalg.norm(total)), 1e-6)

    def encode_query(self, text: str) -> VectorArray:
        return self._vector(text)

    def encode_queries(self, texts: Sequence[str]) -> VectorArray:
        return np.stack([self._vector(text) for text in texts])

    def encode_passages(self, titles: Sequence[str], texts: Sequence[str]) -> VectorArray:
        return np.stack([self._vector(f"{title} {text}") for title, text in zip(titles, texts, strict=True)])


def use_fake_encoder(app: App) -> None:
    """Make FakeDense the default dense encoder of the application."""
    fake = FakeDense()
    app.encoders.add_dense(fake)
    app.encoders.use_as_default(fake.id)
