"""Term weights of sparse vectors: rounding to 9 significant bits, idf, and pruning.

Lucene's feature fields keep a weight's sign, exponent and the first eight bits of its fraction. Weights are rounded
here to the same precision before any engine stores them, so that all engines compute the same scores.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hyblink.app.core.types.arrays import IdArray, TermWeights

SIGNIFICANT_BITS = 9
_DROPPED = 24 - SIGNIFICANT_BITS
RELATIVE_ERROR = 2.0**-SIGNIFICANT_BITS
"""The largest relative error of `round_weights`."""


def round_weights(weights: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Round float32 weights to 9 significant bits, to nearest, ties to even.

    >>> round_weights([1.0, 0.3, 2.003]).tolist()
    [1.0, 0.2998046875, 2.0]
    """
    bits = np.ascontiguousarray(weights, dtype=np.float32).view(np.uint32)
    odd = (bits >> np.uint32(_DROPPED)) & np.uint32(1)
    rounded = bits + np.uint32((1 << (_DROPPED - 1)) - 1) + odd
    return (rounded & np.uint32(0xFFFFFFFF ^ ((1 << _DROPPED) - 1))).view(np.float32)


def idf(frequency: npt.NDArray[np.float64] | IdArray, passages: int) -> npt.NDArray[np.float32]:
    """BM25's idf, ln(1 + (N - df + 0.5) / (df + 0.5)): `frequency` holds each token's df, `passages` is N."""
    return np.log1p((passages - frequency + 0.5) / (frequency + 0.5)).astype(np.float32)


def idf_weights(ids: npt.NDArray[np.int32], frequency: IdArray, passages: int, limit: int) -> TermWeights:
    """Query weights of a bag of tokens: BM25's idf, only the `limit` largest.

    `frequency` is parallel to `ids` and holds each token's document frequency, in passages. Tokens with a frequency
    of 0 are left out.
    """
    weights = idf(frequency, passages)
    usable = (frequency > 0) & (weights > 0)
    return heaviest(TermWeights(ids[usable], weights[usable]), limit)


_SMALLEST_PRIOR, _LARGEST_RATIO = 0.3, 3.0


def calibrated(terms: TermWeights, idf: TermWeights, prior: npt.NDArray[np.float32]) -> TermWeights:
    """Query weights corrected for a collection whose idf differs from the one that a model learned.

    Each weight of `terms` is multiplied by idf / prior, at most 3. `prior` is the model's idf, parallel to `terms`.
    `idf` holds the collection's idf for a subset of the tokens of `terms`. Tokens without it are dropped.
    """
    at = np.searchsorted(terms.ids, idf.ids)
    ratio = np.minimum(idf.weights / np.maximum(prior[at], _SMALLEST_PRIOR), _LARGEST_RATIO)
    return product(terms, TermWeights(idf.ids, ratio))


def product(terms: TermWeights, other: TermWeights) -> TermWeights:
    """Per token the product of the weights in `terms` and `other`. The ids of `other` are a subset of `terms`'s."""
    return TermWeights(other.ids, other.weights * terms.weights[np.searchsorted(terms.ids, other.ids)])


def heaviest(terms: TermWeights, limit: int) -> TermWeights:
    """The `limit` largest weights, rounded to 9 significant bits; ties go to lower ids.

    Weights that are not positive after rounding are left out.
    """
    weights = round_weights(terms.weights)
    order = np.lexsort((terms.ids, -weights))[:limit]
    keep = np.sort(order[weights[order] > 0])
    return TermWeights(terms.ids[keep], weights[keep])
