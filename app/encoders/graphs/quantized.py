"""Int8 matrix products: weights are quantised when the graph is built, activations while it runs.

Each token's activations have a scale of their own. So a text's result does not depend on the texts beside it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hyblink.app.encoders.graphs.parts import Floats

LARGEST = 127
"""Weights have 8 bits, with sign."""
LARGEST_ACTIVATION = 128
"""Activations are bytes of at most this. x86 CPUs without VNNI add two products of bytes in 16 bits: 2 · 128 · 127
fits, 2 · 255 · 127 does not. So the same integers come out on every CPU. (The other way round, weights of 7 bits and
activations of 8, loses twice as much.)"""
ZERO, ZERO_AFTER_ACTIVATION = 64, 16
"""The bytes that stand for 0: in activations of both signs, and in those that are hardly ever negative."""
_SHARES = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7)
"""The ranges that are tried, as shares of the largest weight."""


def quantized(weight: Floats) -> tuple[npt.NDArray[np.int8], Floats]:
    """(weights, scales): ``weight ≈ weights · scales``, symmetric, with one scale for each output (column).

    Of some ranges each column takes the one with the least squared error. Weights outside it are clipped.
    """
    largest = np.maximum(np.abs(weight).max(axis=0), 1e-12)
    best = np.full(weight.shape[1], np.inf)
    weights = np.zeros(weight.shape, dtype=np.int8)
    scales = np.ones(weight.shape[1], dtype=np.float32)
    for share in _SHARES:
        tried = (largest * share / LARGEST).astype(np.float32)
        rounded = np.clip(np.rint(weight / tried), -LARGEST, LARGEST)
        error = np.square(rounded * tried - weight).sum(axis=0)
        better = error < best
        best = np.where(better, error, best)
        scales = np.where(better, tried, scales)
        weights[:, better] = rounded[:, better]
    return weights, scales
