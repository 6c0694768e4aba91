"""Makes the graph of an encoder: token ids to token states, or to the score of a pair."""

from __future__ import annotations

from onnx import ModelProto, TensorProto

from hyblink.app.core.errors import EncoderUnavailableError
from hyblink.app.encoders.graphs.blocks import Nodes
from hyblink.app.encoders.graphs.parts import Encoder
from hyblink.app.encoders.graphs.precision import GraphOutput, GraphPrecision


def graph(made: Encoder, precision: GraphPrecision, output: GraphOutput) -> ModelProto:
    """The graph of an encoder, whose constants are inside.

    Its inputs are `input_ids`, `token_type_ids` (int64) and `attention_mask` (int32), all (B, L). Its output is
    `states` (B, L, H) or `score` (B,). See `GraphPrecision` for what is quantised.
    """
    nodes = Nodes()
    x = nodes.embeddings(made.embeddings, made.epsilon, "input_ids", "token_type_ids")
    bias = nodes.relative_bias(made.relative, made.longest, "input_ids") if made.relative is not None else ""
    for number, layer in enumerate(made.layers, 1):
        first_only = output == "score" and number == len(made.layers)
        x = nodes.layer(x, made, layer, "attention_mask", bias=bias, precision=precision, first_only=first_only)
    shape: list[str | int] = ["B", "L", made.hidden]
    if output == "score":
        if made.pair is None:
            raise EncoderUnavailableError("the model has no trained scoring layer", expected="a cross-encoder")
        first = nodes.add("Squeeze", x, nodes.integers(1))
        hidden = nodes.linear(first, made.pair.dense, bias=False)
        hidden = nodes.activation(hidden, made.pair.activation, made.pair.dense.bias)
        x = nodes.add("Squeeze", nodes.linear(hidden, made.pair.output), nodes.integers(1))
        shape = ["B"]
    inputs = {"input_ids": (TensorProto.INT64, ("B", "L")), "attention_mask": (TensorProto.INT32, ("B", "L"))}
    if made.embeddings.types is not None:
        inputs["token_type_ids"] = (TensorProto.INT64, ("B", "L"))
    return nodes.model(inputs, (output, x, shape))
