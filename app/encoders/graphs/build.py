"""Makes the graph of an encoder: token ids to token states, or to the score of a pair."""

from __future__ import annotations

from onnx import ModelProto, TensorProto, helper

from hyblink.app.encoders.graphs.blocks import Nodes
from hyblink.app.encoders.graphs.parts import Encoder
from hyblink.app.encoders.graphs.precision import GraphOutput, GraphPrecision

OPSET, IR_VERSION = 18, 9


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
        assert made.pair is not None
        first = nodes.add("Squeeze", x, nodes.integers(1))
        hidden = nodes.linear(first, made.pair.dense, bias=False)
        hidden = nodes.activation(hidden, made.pair.activation, made.pair.dense.bias)
        x = nodes.add("Squeeze", nodes.linear(hidden, made.pair.output), nodes.integers(1))
        shape = ["B"]
    nodes.nodes.append(helper.make_node("Identity", [x], [output], name="output"))
    inputs = [
        helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["B", "L"]),
        helper.make_tensor_value_info("attention_mask", TensorProto.INT32, ["B", "L"]),
    ]
    if made.embeddings.types is not None:
        inputs.append(helper.make_tensor_value_info("token_type_ids", TensorProto.INT64, ["B", "L"]))
    outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)]
    whole = helper.make_graph(nodes.nodes, "encoder", inputs, outputs, nodes.constants)
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(whole, opset_imports=opsets, ir_version=IR_VERSION, producer_name="hyblink")
