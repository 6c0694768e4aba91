"""Type aliases for NumPy arrays (row ids, scores, vectors), and types for sparse vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IdArray = npt.NDArray[np.int64]

ScoreArray = npt.NDArray[np.float32]

BoolArray = npt.NDArray[np.bool_]

VectorArray = npt.NDArray[np.float32]
"""Float32 vectors, usually of shape (n, dimension). Encoders say whether theirs are L2-normalised."""


@dataclass(frozen=True, slots=True)
class TermWeights:
    """A sparse vector over a vocabulary.

    `ids` are token ids, ascending and unique. `weights[i]` belongs to `ids[i]` and is positive. Stored weights are
    rounded to 9 significant bits.
    """

    ids: npt.NDArray[np.int32]
    weights: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class TokenIdf:
    """The idf of a query's tokens over a collection's passages. Tokens that occur in no passage are left out.

    `vocabulary` is the id of the `BagEncoder` that defines the token ids.
    """

    vocabulary: str
    terms: TermWeights


@dataclass(frozen=True, slots=True)
class TermBatch:
    """Term weights of N passages in CSR form.

    `rows` has shape (N,) and ascends. `offsets` has shape (N + 1,): passage `rows[n]` has the token ids
    `ids[offsets[n]:offsets[n + 1]]`. `weights` is parallel to `ids`, or empty if every weight is 1.
    """

    rows: IdArray
    offsets: IdArray
    ids: npt.NDArray[np.int32]
    weights: ScoreArray


def as_rows(values: Sequence[int] | IdArray) -> IdArray:
    """Row ids as an int64 array of shape (n,)."""
    return np.asarray(values, dtype=np.int64)
