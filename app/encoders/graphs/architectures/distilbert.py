"""DistilBERT (Sanh et al. 2019): BERT without token types and pooler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hyblink.app.encoders.graphs.architectures.architecture import Architecture, Tensors, activation
from hyblink.app.encoders.graphs.parts import Embeddings, Encoder, Layer, PairHead


def _layer(tensors: Tensors, name: str) -> Layer:
    return Layer(
        query=tensors.linear(f"{name}.attention.q_lin"),
        key=tensors.linear(f"{name}.attention.k_lin"),
        value=tensors.linear(f"{name}.attention.v_lin"),
        output=tensors.linear(f"{name}.attention.out_lin"),
        attention_norm=tensors.norm(f"{name}.sa_layer_norm"),
        widen=tensors.linear(f"{name}.ffn.lin1"),
        narrow=tensors.linear(f"{name}.ffn.lin2"),
        norm=tensors.norm(f"{name}.output_layer_norm"),
    )


def encoder(tensors: Tensors, config: Mapping[str, Any], layers: int) -> Encoder:
    """DistilBERT's encoder."""
    pair = None
    if "classifier.weight" in tensors:
        pair = PairHead(tensors.linear("pre_classifier"), "relu", tensors.linear("classifier"))
    positions = tensors["embeddings.position_embeddings.weight"]
    return Encoder(
        embeddings=Embeddings(
            words=tensors["embeddings.word_embeddings.weight"],
            positions=positions,
            norm=tensors.norm("embeddings.LayerNorm"),
        ),
        layers=tuple(_layer(tensors, f"transformer.layer.{number}") for number in range(layers)),
        heads=int(config["n_heads"]),
        activation=activation(config.get("activation", "gelu")),
        epsilon=1e-12,
        longest=len(positions),
        pair=pair,
    )


DISTILBERT = Architecture("distilbert", "distilbert.", encoder)
