"""A backbone shared by several heads: one forward pass gives each text's dense vector and its token states.

A text longer than the window is read in overlapping windows. Each token takes its state from the window in which it is
nearest to the middle, so heads that pool over tokens see each token once. The dense vector is that of the first
window, the same as that of the dense model alone.

Shapes: L tokens of a text with [CLS] and [SEP], H hidden, D dimension.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hyblink.app.core.types.arrays import VectorArray
from hyblink.app.encoders.runtimes.transformer import Transformer

_OVERLAP = 0.25
"""The share of a window that overlaps with the next one."""


@dataclass(frozen=True, slots=True)
class TextStates:
    """The backbone's output for a text: its dense vector, L2-normalised, its token ids and their states."""

    vector_D: VectorArray
    ids_L: npt.NDArray[np.int32]
    states_LH: npt.NDArray[np.float32]


def windows(tokens: int, size: int) -> list[tuple[int, int]]:
    """(start, end) of overlapping windows of at most `size` tokens over a text; the last one ends with the text.

    >>> windows(10, 4)
    [(0, 4), (3, 7), (6, 10)]
    >>> windows(3, 4)
    [(0, 3)]
    """
    if tokens <= size:
        return [(0, tokens)]
    step = max(1, size - round(size * _OVERLAP))
    starts = [*range(0, tokens - size, step), tokens - size]
    return [(start, start + size) for start in starts]


def owners(spans: Sequence[tuple[int, int]], tokens: int) -> npt.NDArray[np.int64]:
    """For each token the index of the window in which it is nearest to the middle, shape (tokens,)."""
    at = np.arange(tokens)
    starts, ends = np.array(spans).reshape(-1, 2).T
    middles = (starts + ends - 1) / 2
    inside = (starts <= at[:, None]) & (at[:, None] < ends)
    distance = np.where(inside, np.abs(at[:, None] - middles[None, :]), np.inf)
    nearest: npt.NDArray[np.int64] = distance.argmin(axis=1)
    return nearest


class Backbone:
    """A transformer that is read in windows. Safe to share between threads.

    `window` is the longest input in tokens, special tokens included. Texts are cut after `max_tokens`. `batch_size`
    counts windows.
    """

    def __init__(self, transformer: Transformer, *, window: int, max_tokens: int, batch_size: int = 32) -> None:
        self._transformer = transformer
        self._window = window - 2  # [CLS] and [SEP]
        self._max_tokens = max(max_tokens - 2, self._window)
        self._batch_size = batch_size

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        return [ids[: self._max_tokens] for ids in self._transformer.tokens.ids(texts)]

    def states(self, texts: Sequence[str]) -> Iterator[tuple[int, TextStates]]:
        """(index of the text, its states) for all texts, the longest first."""
        for group in self.groups(texts):
            yield from group

    def groups(self, texts: Sequence[str]) -> Iterator[list[tuple[int, TextStates]]]:
        """As `states`, in lists of the texts that were computed in one batch."""
        tokens = self._ids(texts)
        order = sorted(range(len(texts)), key=lambda at: -len(tokens[at]))
        group: list[int] = []
        count = 0
        for at in order:
            group.append(at)
            count += len(windows(len(tokens[at]), self._window))
            if count >= self._batch_size:
                yield self._group(group, tokens)
                group, count = [], 0
        if group:
            yield self._group(group, tokens)

    def _group(self, group: Sequence[int], tokens: Sequence[Sequence[int]]) -> list[tuple[int, TextStates]]:
        spans = {at: windows(len(tokens[at]), self._window) for at in group}
        as_row = self._transformer.tokens.row
        rows = [as_row(tokens[at][start:end]) for at in group for start, end in spans[at]]
        vectors, states = self._transformer.both(rows)
        found = []
        row = 0
        for at in group:
            own, text = spans[at], tokens[at]
            parts = states[row : row + len(own)]
            inner = np.empty((len(text), parts[0].shape[1]), dtype=np.float32)
            holder = owners(own, len(text))
            for number, (start, end) in enumerate(own):
                mine = np.flatnonzero(holder[start:end] == number) + start
                inner[mine] = parts[number][mine - start + 1]
            ids = np.array(as_row(text), dtype=np.int32)
            states_LH = np.concatenate([parts[0][:1], inner, parts[-1][-1:]])
            found.append((at, TextStates(vectors[row], ids, states_LH)))
            row += len(own)
        return found
