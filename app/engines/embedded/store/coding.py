"""Encoding of SQLite's values: paths as JSON; int32 ids, float32 weights and float16 vectors, little-endian."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import orjson

from hyblink.app.core.types.arrays import ScoreArray, TermWeights, VectorArray


def encode_path(path: Sequence[str]) -> str:
    """A passage's path as JSON; an empty one as an empty text."""
    return orjson.dumps(path).decode() if path else ""


def decode_path(path: str) -> tuple[str, ...]:
    """The inverse of `encode_path`."""
    return tuple(orjson.loads(path)) if path else ()


def decode_terms(ids: bytes, weights: bytes | None) -> TermWeights:
    """One row's sparse vector. Weights of None mean that all are 1."""
    decoded = np.frombuffer(ids, dtype="<i4")
    if weights is None:
        return TermWeights(decoded, np.ones(len(decoded), dtype=np.float32))
    return TermWeights(decoded, np.frombuffer(weights, dtype="<f4"))


def decode_weights(blobs: Sequence[bytes | None], lengths: Sequence[int]) -> ScoreArray:
    """The weights of several rows, concatenated; empty if all are 1. `lengths` are the rows' numbers of tokens."""
    if not any(blobs):
        return np.zeros(0, dtype=np.float32)
    weight = np.float32(1.0).tobytes()
    filled = [weight * length if blob is None else blob for blob, length in zip(blobs, lengths, strict=True)]
    return np.frombuffer(b"".join(filled), dtype="<f4")


def encode_terms(terms: TermWeights) -> tuple[bytes, bytes | None]:
    """(ids, weights) of a sparse vector as bytes. The weights are None if all are 1."""
    ids = terms.ids.astype("<i4").tobytes()
    return ids, None if bool((terms.weights == 1.0).all()) else terms.weights.astype("<f4").tobytes()


def decode_vectors(blobs: Sequence[bytes]) -> VectorArray:
    """The vectors as float32, shape (n, D); (0, 0) for none."""
    if not blobs:
        return np.zeros((0, 0), dtype=np.float32)
    return np.frombuffer(b"".join(blobs), dtype="<f2").reshape(len(blobs), -1).astype(np.float32)
