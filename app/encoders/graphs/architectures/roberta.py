"""RoBERTa (Liu et al. 2019) and XLM-RoBERTa (Conneau et al. 2020): BERT whose positions leave out padding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hyblink.app.encoders.graphs.architectures.architecture import Architecture, Tensors
from hyblink.app.encoders.graphs.architectures.bert import bert_like
from hyblink.app.encoders.graphs.parts import Encoder, PairHead


def pair_head(tensors: Tensors) -> PairHead | None:
    """The scoring layer of a cross-encoder, if the model has one."""
    return tensors.pair_head("classifier.dense", "tanh", "classifier.out_proj")


def with_padding(made: Encoder, padding: int) -> Encoder:
    """The encoder with positions that count from `padding + 1` on and leave out tokens with this id."""
    embeddings = replace(made.embeddings, padding=padding)
    return replace(made, embeddings=embeddings, longest=made.longest - padding - 1)


def encoder(tensors: Tensors, config: Mapping[str, Any], layers: int) -> Encoder:
    """RoBERTa's encoder."""
    made = bert_like(tensors, config, layers, pair_head(tensors))
    return with_padding(made, int(config.get("pad_token_id", 1)))


ROBERTA = Architecture("roberta", "roberta.", encoder)
XLM_ROBERTA = Architecture("xlm-roberta", "roberta.", encoder)
