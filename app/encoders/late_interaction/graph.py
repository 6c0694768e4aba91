"""ONNX export of late-interaction models: from token ids to the head's outputs for each token."""

from __future__ import annotations

from hyblink.app.encoders.family import Graph
from hyblink.app.encoders.late_interaction.head import load_tokens
from hyblink.app.encoders.loading.adapters import LATE_INTERACTION, trained


def graph(model: str) -> Graph:
    """The `Graph` of a late-interaction model. Outputs per token: vector, learned correction of its idf, idf."""
    module, _ = load_tokens(model, "cpu")
    fields = {"scale": float(module.head.scale.detach()), "positions": module.positions}
    outputs = ("vectors", "learned", "idf")
    base = str(trained(model)["base"])
    return Graph(module, LATE_INTERACTION, ("input_ids", "attention_mask"), outputs, base, fields)
