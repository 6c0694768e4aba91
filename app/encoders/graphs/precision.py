"""The precisions in which a graph can be built."""

from __future__ import annotations

from typing import Literal, get_args

GraphPrecision = Literal["fp32", "int8", "int8_all"]
"""float32; feed-forward and output matrices in int8; all matrices of the layers in int8."""

GraphOutput = Literal["states", "score"]
"""Token states, or the score of a pair."""

GRAPH_PRECISIONS: tuple[GraphPrecision, ...] = get_args(GraphPrecision)
