"""BERT (Devlin et al. 2019)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hyblink.app.encoders.graphs.architectures.architecture import (
    Architecture,
    LayerNames,
    Tensors,
    activation,
    unknown,
)
from hyblink.app.encoders.graphs.parts import Embeddings, Encoder, PairHead

_LAYER = LayerNames(
    query="attention.self.query", key="attention.self.key", value="attention.self.value",
    output="attention.output.dense", attention_norm="attention.output.LayerNorm",
    widen="intermediate.dense", narrow="output.dense", norm="output.LayerNorm",
)  # fmt: skip


def bert_like(tensors: Tensors, config: Mapping[str, Any], layers: int, pair: PairHead | None) -> Encoder:
    """An encoder with BERT's tensor names. ELECTRA and RoBERTa share them."""
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise unknown("relative positions", config["position_embedding_type"])
    if config.get("is_decoder") or config.get("add_cross_attention"):
        raise unknown("a decoder", config.get("model_type"))
    projected = "embeddings_project.weight" in tensors
    embeddings = Embeddings(
        words=tensors["embeddings.word_embeddings.weight"],
        positions=tensors["embeddings.position_embeddings.weight"],
        types=tensors["embeddings.token_type_embeddings.weight"],
        norm=tensors.norm("embeddings.LayerNorm"),
        project=tensors.linear("embeddings_project") if projected else None,
    )
    return Encoder(
        embeddings=embeddings,
        layers=tuple(tensors.layer(f"encoder.layer.{number}", _LAYER) for number in range(layers)),
        heads=int(config["num_attention_heads"]),
        activation=activation(config.get("hidden_act", "gelu")),
        epsilon=float(config.get("layer_norm_eps", 1e-12)),
        longest=len(embeddings.positions),
        pair=pair,
    )


def encoder(tensors: Tensors, config: Mapping[str, Any], layers: int) -> Encoder:
    """BERT's encoder. The scoring layer of a cross-encoder reads the pooler."""
    return bert_like(tensors, config, layers, tensors.pair_head("pooler.dense", "tanh", "classifier"))


BERT = Architecture("bert", "bert.", encoder)
