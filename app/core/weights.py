"""Term weights: nine significant bits, and idf.

Lucene's feature fields keep a weight's sign, exponent and the first eight bits of its fraction. Rounding here,
once, before any engine sees a weight, makes every engine score the same numbers.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hyblink.app.core.types.arrays import IdArray, TermWeights

SIGNIFICANT_BITS = 9
_DROPPED = 24 - SIGNIFICANT_BITS
RELATIVE_ERROR = 2.0**-SIGNIFICANT_BITS
"""Largest relative error of rounding to nearest."""


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
    """BM25's idf, ln(1 + (N - df + 0.5) / (df + 0.5)), of tokens that stand in `frequency` of so many passages."""
    return np.log1p((passages - frequency + 0.5) / (frequency + 0.5)).astype(np.float32)


def idf_weights(ids: npt.NDArray[np.int32], frequency: IdArray, passages: int, limit: int) -> TermWeights:
    """The query side of a bag of tokens: idf as in BM25, the heaviest `limit`.

    `frequency` has the number of passages that hold each token. Tokens that none holds are left out.
    """
    weights = idf(frequency, passages)
    usable = (frequency > 0) & (weights > 0)
    return heaviest(TermWeights(ids[usable], weights[usable]), limit)


_SMALLEST_PRIOR, _LARGEST_RATIO = 0.3, 3.0


def calibrated(terms: TermWeights, idf: TermWeights, prior: npt.NDArray[np.float32]) -> TermWeights:
    """Query weights for a collection whose idf is another one than passages were weighed with.

    `prior` stands beside `terms`; `idf` holds the collection's, for the tokens that it has. BM25 takes its idf from the
    collection; a model's weights learn theirs elsewhere, so each query weight is multiplied by the ratio, at most 3.
    """
    at = np.searchsorted(terms.ids, idf.ids)
    ratio = np.minimum(idf.weights / np.maximum(prior[at], _SMALLEST_PRIOR), _LARGEST_RATIO)
    return product(terms, TermWeights(idf.ids, ratio))


def product(terms: TermWeights, other: TermWeights) -> TermWeights:
    """The products of weights of tokens that both have; `other` has no token that `terms` has not."""
    return TermWeights(other.ids, other.weights * terms.weights[np.searchsorted(terms.ids, other.ids)])


def heaviest(terms: TermWeights, limit: int) -> TermWeights:
    """The `limit` largest weights, of equal ones the lower ids, rounded; what rounds to nothing is left out."""
    weights = round_weights(terms.weights)
    order = np.lexsort((terms.ids, -weights))[:limit]
    keep = np.sort(order[weights[order] > 0])
    return TermWeights(terms.ids[keep], weights[keep])
