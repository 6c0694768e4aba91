"""Arrays by what they hold, and sparse vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IdArray = npt.NDArray[np.int64]

ScoreArray = npt.NDArray[np.float32]

BoolArray = npt.NDArray[np.bool_]

VectorArray = npt.NDArray[np.float32]
"""Shape (n, dimension), L2-normalised where the encoder says so."""


@dataclass(frozen=True, slots=True)
class TermWeights:
    """A sparse vector over a vocabulary. `ids` ascend without repeats; `weights` are > 0, 9 significant bits."""

    ids: npt.NDArray[np.int32]
    weights: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class TokenIdf:
    """The idf of a query's tokens over a collection's passages; tokens that it has not are left out.

    `vocabulary` is the id of the bag encoder whose tokens they are.
    """

    vocabulary: str
    terms: TermWeights


@dataclass(frozen=True, slots=True)
class TermBatch:
    """Term weights of N rows, which ascend: row n has `ids[offsets[n]:offsets[n + 1]]`.

    `weights` stand beside `ids`, or are empty where all are 1.
    """

    rows: IdArray
    offsets: IdArray
    ids: npt.NDArray[np.int32]
    weights: ScoreArray


def as_rows(values: Sequence[int] | IdArray) -> IdArray:
    """Row ids as an int64 array of shape (n,)."""
    return np.asarray(values, dtype=np.int64)
