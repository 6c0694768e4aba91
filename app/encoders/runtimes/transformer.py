"""What a runtime gives: a loaded transformer encoder that turns rows of token ids into states and vectors.

Shapes: B rows, L tokens of a row with its special tokens, H hidden, D dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, get_args

from hyblink.app.core.types.arrays import VectorArray
from hyblink.app.encoders.graphs.parts import Floats
from hyblink.app.encoders.loading.tokens import Ids, TextTokens

Runtime = Literal["onnx", "torch"]
Precision = Literal["fp32", "bf16", "int8", "int8_all"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


class Transformer(Protocol):
    """A loaded transformer encoder. Safe to share between threads."""

    @property
    def runtime(self) -> Runtime: ...

    @property
    def tokens(self) -> TextTokens:
        """The model's tokenizer."""
        ...

    @property
    def dimension(self) -> int:
        """The number of dimensions D of text vectors."""
        ...

    @property
    def longest(self) -> int:
        """The largest number of tokens of a row, special tokens included."""
        ...

    def word_vectors(self) -> Floats:
        """The word vectors, shape (V, E)."""
        ...

    def vectors(self, rows: Sequence[Ids]) -> VectorArray:
        """The rows' text vectors, L2-normalised, shape (B, D)."""
        ...

    def states(self, rows: Sequence[Ids]) -> list[Floats]:
        """Each row's token states, shape (L, H)."""
        ...

    def both(self, rows: Sequence[Ids]) -> tuple[VectorArray, list[Floats]]:
        """(text vectors, token states) of one pass."""
        ...
