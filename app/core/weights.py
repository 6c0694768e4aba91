"""Nine significant bits.

Lucene's feature fields keep a weight's sign, exponent and the first eight bits of its fraction. Rounding here,
once, before any engine sees a weight, makes every engine score the same numbers.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

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
