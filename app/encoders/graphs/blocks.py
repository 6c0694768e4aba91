"""The nodes of a graph: layers of a transformer as fused operators of ONNX Runtime (`com.microsoft`).

Shapes: B texts, L tokens, E word vectors, H hidden.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from hyblink.app.encoders.graphs.parts import Activation, Embeddings, Encoder, Floats, Layer, Linear, Norm, RelativeBias
from hyblink.app.encoders.graphs.precision import GraphPrecision
from hyblink.app.encoders.graphs.quantized import LARGEST_ACTIVATION, ZERO, ZERO_AFTER_ACTIVATION, quantized

_FUSED = "com.microsoft"
_OPSET, _IR_VERSION = 18, 9
Shape = Sequence[str | int]
_LEAST: dict[Activation, float] = {"gelu": -0.17, "gelu_tanh": -0.17, "relu": 0.0}
"""The smallest value of an activation function."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Quantised activations: the names of their bytes and of the tokens' scales, and the byte that stands for 0."""

    bytes: str
    scale: str
    zero: int


class Nodes:
    """A graph in the making: its nodes and constants. Methods add nodes and return the name of their output."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []

    def model(self, inputs: Mapping[str, tuple[int, Shape]], output: tuple[str, str, Shape]) -> ModelProto:
        """The finished model. `inputs` are types and shapes by name, `output` is (name, node output, shape)."""
        name, made, shape = output
        last = helper.make_node("Identity", [made], [name], name="output")
        given = [helper.make_tensor_value_info(key, kind, size) for key, (kind, size) in inputs.items()]
        told = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)]
        graph = helper.make_graph([*self.nodes, last], "hyblink", given, told, self.constants)
        opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(_FUSED, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION, producer_name="hyblink")

    def constant(self, values: npt.NDArray[Any] | np.generic, name: str = "") -> str:
        """Add a constant."""
        name = name or f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(values, order="C"), name))
        return name

    def integers(self, *values: int) -> str:
        """Add a constant vector of integers."""
        return self.constant(np.array(values, dtype=np.int64))

    def add(self, operator: str, *inputs: str, fused: bool = False, outputs: int = 1, **fields: Any) -> str:
        """Add a node. `fused` operators are ONNX Runtime's own. The first output's name is returned."""
        names = [f"n{len(self.nodes)}" if not at else f"n{len(self.nodes)}_{at}" for at in range(outputs)]
        domain = {"domain": _FUSED} if fused else {}
        self.nodes.append(helper.make_node(operator, list(inputs), names, **domain, **fields))
        return names[0]

    def linear(self, x: str, layer: Linear, *, bias: bool = True) -> str:
        """``x · weight``, with the bias added unless `bias` is off."""
        product = self.add("MatMul", x, self.constant(layer.weight))
        return self.add("Add", product, self.constant(layer.bias)) if bias else product

    def rows(self, x: str, least: float | None = None) -> Rows:
        """Quantise activations to bytes, with one scale for each token.

        `least` is the smallest value that an activation function gives; None means that both signs are alike.
        """
        zero = ZERO if least is None else ZERO_AFTER_ACTIVATION
        steps = LARGEST_ACTIVATION - zero
        top = self.add("ReduceMax", self.add("Abs", x) if least is None else x, self.integers(-1), keepdims=1)
        floor = 1e-9 if least is None else max(1e-9, -least * steps / zero)  # so that `least` is a byte too
        top = self.add("Max", top, self.constant(np.float32(floor)))
        scale = self.add("Mul", top, self.constant(np.float32(1 / steps)))
        one, at = self.constant(np.float32(1)), self.constant(np.uint8(zero))
        return Rows(self.add("QuantizeLinear", self.add("Div", x, scale), one, at), scale, zero)

    def product(self, rows: Rows, weight: Floats) -> str:
        """``x · weight`` in int8, of quantised activations."""
        values, scales = quantized(weight)
        inputs = [self.constant(item) for item in (values, np.float32(1), scales, np.uint8(rows.zero))]
        zeros = self.constant(np.zeros(len(scales), dtype=np.int8))
        return self.add("Mul", self.add("MatMulIntegerToFloat", rows.bytes, *inputs, zeros, fused=True), rows.scale)

    def activation(self, x: str, kind: Activation, bias: Floats) -> str:
        """The activation of ``x + bias``."""
        if kind == "gelu":
            return self.add("BiasGelu", x, self.constant(bias), fused=True)
        if kind == "gelu_tanh":
            return self.add("FastGelu", x, self.constant(bias), fused=True)
        return self.add("Relu" if kind == "relu" else "Tanh", self.add("Add", x, self.constant(bias)))

    def norm(self, x: str, norm: Norm, epsilon: float) -> str:
        """Layer normalisation."""
        return self.add("LayerNormalization", x, *self._norm(norm), axis=-1, epsilon=epsilon)

    def _norm(self, norm: Norm) -> tuple[str, str]:
        return self.constant(norm.weight), self.constant(norm.bias)

    def sum_norm(self, x: str, residual: str, norm: Norm, epsilon: float, bias: Floats) -> str:
        """Layer normalisation of ``x + residual + bias``."""
        return self.add(
            "SkipLayerNormalization", x, residual, *self._norm(norm), self.constant(bias), fused=True, epsilon=epsilon
        )

    def embeddings(self, parts: Embeddings, epsilon: float, ids: str, types: str) -> str:
        """The input layer: token ids and token types (B, L) to vectors (B, L, H)."""
        words = self.add("Gather", self.constant(parts.words, "words"), ids)
        table = self.constant(parts.positions, "positions")
        if parts.padding is None:
            length = self.add("Slice", self.add("Shape", ids), self.integers(1), self.integers(2))
            places = self.add("Slice", table, self.integers(0), length, self.integers(0))
        else:
            padding = self.integers(parts.padding)
            told = self.add("Cast", self.add("Not", self.add("Equal", ids, padding)), to=TensorProto.INT64)
            counted = self.add("Mul", self.add("CumSum", told, self.constant(np.array(1, dtype=np.int64))), told)
            places = self.add("Gather", table, self.add("Add", counted, padding))
        total = self.add("Add", words, places)
        if parts.types is not None:
            total = self.add("Add", total, self.add("Gather", self.constant(parts.types), types))
        made = self.norm(total, parts.norm, epsilon)
        return made if parts.project is None else self.linear(made, parts.project)

    def relative_bias(self, bias: RelativeBias, longest: int, ids: str) -> str:
        """The values that MPNet adds to attention logits, shape (1, heads, L, L)."""
        table = self.constant(relative_buckets(longest, len(bias.values), bias.furthest), "buckets")
        length = self.add("Slice", self.add("Shape", ids), self.integers(1), self.integers(2))
        both = self.add("Concat", length, length, axis=0)
        buckets = self.add("Slice", table, self.integers(0, 0), both, self.integers(0, 1))
        values = self.add("Gather", self.constant(bias.values), self.add("Cast", buckets, to=TensorProto.INT64))
        return self.add("Unsqueeze", self.add("Transpose", values, perm=[2, 0, 1]), self.integers(0))

    def attention(self, x: str, layer: Layer, heads: int, mask: str, bias: str, precision: GraphPrecision) -> str:
        """Self-attention of all heads, without the projection that follows. `mask` is (B, L), int32, 1 for text."""
        three = (layer.query, layer.key, layer.value)
        biases = self.constant(np.concatenate([part.bias for part in three]))
        if precision == "int8_all":
            rows = self.rows(x)
            products = [self.product(rows, part.weight) for part in three]
            return self.add("MultiHeadAttention", *products, biases, mask, bias, fused=True, num_heads=heads)
        weights = self.constant(np.concatenate([part.weight for part in three], axis=1))
        return self.add("Attention", x, weights, biases, mask, "", bias, fused=True, num_heads=heads)

    def layer(
        self, x: str, made: Encoder, layer: Layer, mask: str, *, bias: str, precision: GraphPrecision, first_only: bool
    ) -> str:
        """A layer: states (B, L, H) to states (B, L, H), or (B, 1, H) of the first token with `first_only`."""

        def times(x: str, linear: Linear, least: float | None = None) -> str:
            if precision == "fp32":
                return self.linear(x, linear, bias=False)
            return self.product(self.rows(x, least), linear.weight)

        attended = self.attention(x, layer, made.heads, mask, bias, precision)
        if first_only:
            attended, x = (self.add("Slice", item, *map(self.integers, (0, 1, 1))) for item in (attended, x))
        attended = times(attended, layer.output)
        x = self.sum_norm(attended, x, layer.attention_norm, made.epsilon, layer.output.bias)
        wide = self.activation(times(x, layer.widen), made.activation, layer.widen.bias)
        narrow = times(wide, layer.narrow, _LEAST[made.activation])
        return self.sum_norm(narrow, x, layer.norm, made.epsilon, layer.narrow.bias)


def relative_buckets(longest: int, buckets: int, furthest: int) -> npt.NDArray[np.uint8]:
    """T5's buckets of token distances, both directions apart, shape (longest, longest) (Raffel et al. 2020).

    Half of a direction's buckets are for one distance each, the others grow logarithmically up to `furthest`.
    """
    one_way = buckets // 2
    exact = one_way // 2
    distance = np.arange(longest)[:, None] - np.arange(longest)[None, :]  # query minus key
    away = np.abs(distance)
    share = np.log(np.maximum(away, 1).astype(np.float32) / exact) / math.log(furthest / exact)
    far = np.minimum(exact + (share * (one_way - exact)).astype(np.int64), one_way - 1)
    found: npt.NDArray[np.uint8] = (np.where(distance < 0, one_way, 0) + np.where(away < exact, away, far)).astype(
        np.uint8
    )
    return found
