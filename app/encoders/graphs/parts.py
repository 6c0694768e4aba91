"""The parts of a transformer encoder, named alike for all architectures. Matrices are (inputs, outputs), in float32."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Activation = Literal["gelu", "gelu_tanh", "relu", "tanh"]


@dataclass(frozen=True, slots=True)
class Linear:
    """``x · weight + bias``."""

    weight: Floats
    bias: Floats


@dataclass(frozen=True, slots=True)
class Norm:
    """Layer normalisation."""

    weight: Floats
    bias: Floats


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer: self-attention and a feed-forward network, each followed by a residual sum and a normalisation."""

    query: Linear
    key: Linear
    value: Linear
    output: Linear
    attention_norm: Norm
    widen: Linear
    narrow: Linear
    norm: Norm


@dataclass(frozen=True, slots=True)
class Embeddings:
    """The input layer: sums of word, position and type vectors, normalised, then projected if `project` is there."""

    words: Floats
    positions: Floats
    norm: Norm
    types: Floats | None = None
    project: Linear | None = None
    padding: int | None = None
    """If given, positions count from `padding + 1`, and tokens with the id `padding` have position `padding`.

    Otherwise positions count from 0.
    """


@dataclass(frozen=True, slots=True)
class RelativeBias:
    """MPNet's relative position bias (Raffel et al. 2020, section 2.1): one value per bucket of distances and head."""

    values: Floats
    """Shape (buckets, heads)."""
    furthest: int = 128
    """Distances from here on share a bucket."""


@dataclass(frozen=True, slots=True)
class PairHead:
    """The scoring layer of a cross-encoder, on the first token's state: ``output(activation(dense(state)))``."""

    dense: Linear
    activation: Activation
    output: Linear


@dataclass(frozen=True, slots=True)
class Encoder:
    """A whole transformer encoder."""

    embeddings: Embeddings
    layers: tuple[Layer, ...]
    heads: int
    activation: Activation
    epsilon: float
    """The constant in the denominators of layer normalisations."""
    longest: int
    """The largest number of tokens of an input."""
    relative: RelativeBias | None = None
    pair: PairHead | None = None

    @property
    def hidden(self) -> int:
        """The number of dimensions of token states."""
        return int(self.layers[0].norm.weight.shape[0])
