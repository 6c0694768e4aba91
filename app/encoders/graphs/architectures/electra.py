"""ELECTRA's discriminator (Clark et al. 2020): BERT with word vectors that may be smaller than the states."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hyblink.app.encoders.graphs.architectures.architecture import Architecture, Tensors
from hyblink.app.encoders.graphs.architectures.bert import bert_like
from hyblink.app.encoders.graphs.parts import Encoder


def encoder(tensors: Tensors, config: Mapping[str, Any], layers: int) -> Encoder:
    """ELECTRA's encoder. The scoring layer of a cross-encoder uses GELU."""
    return bert_like(tensors, config, layers, tensors.pair_head("classifier.dense", "gelu", "classifier.out_proj"))


ELECTRA = Architecture("electra", "electra.", encoder)
