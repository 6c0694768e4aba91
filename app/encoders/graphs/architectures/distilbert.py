"""DistilBERT (Sanh et al. 2019): BERT without token types and pooler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hyblink.app.encoders.graphs.architectures.architecture import Architecture, LayerNames, Tensors, activation
from hyblink.app.encoders.graphs.parts import Embeddings, Encoder

_LAYER = LayerNames(
    query="attention.q_lin", key="attention.k_lin", value="attention.v_lin", output="attention.out_lin",
    attention_norm="sa_layer_norm", widen="ffn.lin1", narrow="ffn.lin2", norm="output_layer_norm",
)  # fmt: skip


def encoder(tensors: Tensors, config: Mapping[str, Any], layers: int) -> Encoder:
    """DistilBERT's encoder."""
    positions = tensors["embeddings.position_embeddings.weight"]
    return Encoder(
        embeddings=Embeddings(
            words=tensors["embeddings.word_embeddings.weight"],
            positions=positions,
            norm=tensors.norm("embeddings.LayerNorm"),
        ),
        layers=tuple(tensors.layer(f"transformer.layer.{number}", _LAYER) for number in range(layers)),
        heads=int(config["n_heads"]),
        activation=activation(config.get("activation", "gelu")),
        epsilon=1e-12,
        longest=len(positions),
        pair=tensors.pair_head("pre_classifier", "relu", "classifier"),
    )


DISTILBERT = Architecture("distilbert", "distilbert.", encoder)
