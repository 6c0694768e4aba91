"""ELECTRA's discriminator (Clark et al. 2020): BERT with word vectors that may be smaller than the states."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hyblink.app.encoders.graphs.architectures.architecture import Architecture, Tensors
from hyblink.app.encoders.graphs.architectures.bert import bert_like
from hyblink.app.encoders.graphs.parts import Encoder, PairHead


def encoder(tensors: Tensors, config: Mapping[str, Any], layers: int) -> Encoder:
    """ELECTRA's encoder. The scoring layer of a cross-encoder uses GELU."""
    pair = None
    if "classifier.out_proj.weight" in tensors:
        pair = PairHead(tensors.linear("classifier.dense"), "gelu", tensors.linear("classifier.out_proj"))
    return bert_like(tensors, config, layers, pair)


ELECTRA = Architecture("electra", "electra.", encoder)
