"""A transformer encoder in ONNX Runtime. It needs no torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np

from hyblink.app.core.budget import forward_pass
from hyblink.app.core.types.arrays import VectorArray
from hyblink.app.encoders.graphs.cache import OpenGraph, threads
from hyblink.app.encoders.graphs.parts import Floats
from hyblink.app.encoders.loading.tokens import Ids, TextTokens, padded
from hyblink.app.encoders.runtimes.transformer import Runtime

Pooling = Literal["mean", "cls"]
_BUDGET = 256
"""Rows are computed together up to this many tokens, padding included, for each two CPUs. Longer rows are computed
alone: on CPUs, more tokens in a pass gain nothing."""
_SLACK = 1.25
"""A row joins others if it is longer than their shortest by at most this factor, so that little is padding."""


def passes(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """The rows of each forward pass, as indexes: rows of similar length, longest first.

    >>> list(passes([200, 3, 199, 3, 3], 256))
    [[0], [2], [1, 3, 4]]
    """
    group: list[int] = []
    for at in sorted(range(len(lengths)), key=lambda at: -lengths[at]):
        widest = lengths[group[0]] if group else 0
        if group and (widest * (len(group) + 1) > budget or widest > max(8, lengths[at] * _SLACK)):
            yield group
            group = []
        group.append(at)
    if group:
        yield group


def run(session: Any, tokens: TextTokens, rows: Sequence[Ids], types: Sequence[Ids] | None = None) -> Any:
    """The graph's output for rows of token ids, which are padded to one length."""
    ids_BL, mask_BL = padded(rows, tokens.padding)
    given = {"input_ids": ids_BL, "attention_mask": mask_BL}
    if any(item.name == "token_type_ids" for item in session.get_inputs()):
        given["token_type_ids"] = np.zeros_like(ids_BL) if types is None else padded(types, 0)[0]
    with forward_pass(threads()):
        return session.run(None, given)[0]


def budget() -> int:
    """The number of tokens of a forward pass on this machine."""
    return _BUDGET * max(1, threads() // 2)


class OnnxTransformer:
    """The `Transformer` of a graph that gives token states."""

    runtime: Runtime = "onnx"

    def __init__(self, graph: OpenGraph, tokens: TextTokens, pooling: Pooling) -> None:
        self.graph = graph
        self.tokens = tokens
        self.dimension = graph.hidden
        self.longest = graph.longest
        self._pooling = pooling

    def word_vectors(self) -> Floats:
        return self.graph.words()

    def vectors(self, rows: Sequence[Ids]) -> VectorArray:
        return self.both(rows)[0]

    def states(self, rows: Sequence[Ids]) -> list[Floats]:
        found: dict[int, Floats] = {}
        for group in passes([len(row) for row in rows], budget()):
            states_BLH = run(self.graph.session, self.tokens, [rows[at] for at in group])
            found |= {at: states_LH[: len(rows[at])] for at, states_LH in zip(group, states_BLH, strict=True)}
        return [found[at] for at in range(len(rows))]

    def both(self, rows: Sequence[Ids]) -> tuple[VectorArray, list[Floats]]:
        states = self.states(rows)
        vectors = np.empty((len(rows), self.dimension), dtype=np.float32)
        for at, states_LH in enumerate(states):
            vectors[at] = states_LH[0] if self._pooling == "cls" else states_LH.mean(axis=0)
        return unit(vectors), states


def unit(vectors: VectorArray) -> VectorArray:
    """The rows divided by their lengths."""
    made: VectorArray = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
    return made
