"""A graph of layers that normalise before attention and before the feed-forward network (Xiong et al. 2020)."""

from __future__ import annotations

from collections.abc import Sequence

from onnx import ModelProto, TensorProto

from hyblink.app.encoders.graphs.blocks import Nodes
from hyblink.app.encoders.graphs.parts import Layer

_EPSILON = 1e-5


def pre_norm_graph(layers: Sequence[Layer], heads: int) -> ModelProto:
    """States (B, L, H) to states (B, L, H), in float32, with GELU. The inputs are `states` and `attention_mask`.

    `attention_norm` of a layer is applied before its attention, `norm` before its feed-forward network.
    """
    nodes = Nodes()
    x = "states"
    for layer in layers:
        normed = nodes.norm(x, layer.attention_norm, _EPSILON)
        attended = nodes.attention(normed, layer, heads, "attention_mask", "", "fp32")
        x = nodes.add("Add", x, nodes.linear(attended, layer.output))
        wide = nodes.linear(nodes.norm(x, layer.norm, _EPSILON), layer.widen, bias=False)
        x = nodes.add("Add", x, nodes.linear(nodes.activation(wide, "gelu", layer.widen.bias), layer.narrow))
    shape = ("B", "L", layers[0].query.weight.shape[0])
    inputs = {"states": (TensorProto.FLOAT, shape), "attention_mask": (TensorProto.INT32, ("B", "L"))}
    return nodes.model(inputs, ("made", x, shape))
