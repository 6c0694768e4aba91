"""MPNet (Song et al. 2020): RoBERTa's positions and a relative position bias that all layers share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hyblink.app.encoders.graphs.architectures.architecture import Architecture, LayerNames, Tensors, activation
from hyblink.app.encoders.graphs.architectures.roberta import pair_head, with_padding
from hyblink.app.encoders.graphs.parts import Embeddings, Encoder, RelativeBias

_LAYER = LayerNames(
    query="attention.attn.q", key="attention.attn.k", value="attention.attn.v", output="attention.attn.o",
    attention_norm="attention.LayerNorm", widen="intermediate.dense", narrow="output.dense", norm="output.LayerNorm",
)  # fmt: skip


def encoder(tensors: Tensors, config: Mapping[str, Any], layers: int) -> Encoder:
    """MPNet's encoder."""
    positions = tensors["embeddings.position_embeddings.weight"]
    made = Encoder(
        embeddings=Embeddings(
            words=tensors["embeddings.word_embeddings.weight"],
            positions=positions,
            norm=tensors.norm("embeddings.LayerNorm"),
        ),
        layers=tuple(tensors.layer(f"encoder.layer.{number}", _LAYER) for number in range(layers)),
        heads=int(config["num_attention_heads"]),
        activation=activation(config.get("hidden_act", "gelu")),
        epsilon=float(config.get("layer_norm_eps", 1e-12)),
        longest=len(positions),
        relative=RelativeBias(tensors["encoder.relative_attention_bias.weight"]),
        pair=pair_head(tensors),
    )
    return with_padding(made, 1)


MPNET = Architecture("mpnet", "mpnet.", encoder)
