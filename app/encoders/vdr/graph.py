"""ONNX export of VDR encoders: from token ids to weights over the vocabulary.

One graph encodes queries and passages. The input `query` says for each text which of them it is. The caller splits long
texts into windows and takes each token's largest weight over a passage's windows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from hyblink.app.encoders.dense.graph import pooled, pooling_of
from hyblink.app.encoders.family import Graph
from hyblink.app.encoders.loading.adapters import VDR_HEAD, adapter_manifest
from hyblink.app.encoders.loading.in_torch import load_sentence_transformer
from hyblink.app.encoders.vdr.head import VdrHead, load_encoder, towers

_INPUTS = ("input_ids", "attention_mask", "query")


class VdrGraph(nn.Module):  # type: ignore[misc]
    """The exported module: token ids (B, L) to VDR weights and bag of tokens, both (B, whole vocabulary).

    With `pooling` it also returns the dense vectors (B, D).
    """

    def __init__(
        self, transformer: Any, head: VdrHead, pooling: str = "", of_passages: tuple[Any, VdrHead] | None = None
    ) -> None:
        """`of_passages` is the (transformer, head) of passages if it differs from that of queries.

        Each text is then encoded by both.
        """
        super().__init__()
        self.transformer, self.head, self.pooling = transformer, head, pooling
        self.towers = nn.ModuleList(of_passages or ())

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, query: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        states_BLH = self.transformer(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        features = {"token_embeddings": states_BLH, "input_ids": input_ids, "attention_mask": attention_mask}
        as_query_BV, bag_BV = self.head.embed(features, "query")
        head = self.head
        if len(self.towers):
            transformer, head = self.towers
            own_BLH = transformer(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            features = {**features, "token_embeddings": own_BLH}
        as_passage_BV, _ = head.embed(features, "document")
        weights_BV = torch.where(query[:, None], as_query_BV, as_passage_BV)
        wide = tuple(nn.functional.pad(item, (self.head.shift, 0)) for item in (weights_BV, bag_BV))
        return (*wide, pooled(states_BLH, attention_mask, self.pooling)) if self.pooling else wide


def graph_of_head(model: str) -> Graph:
    """The `Graph` of a VDR head with its backbone: weights, bag of tokens and dense vector of one forward pass."""
    folder = Path(model).expanduser()
    manifest = adapter_manifest(folder, VDR_HEAD, "VDR", "model.safetensors")
    backbone = load_sentence_transformer(str(manifest["base"]), "cpu")
    head = VdrHead.load(str(folder), local_files_only=True).float()
    transformer = backbone[0].model
    head.tie(transformer.get_input_embeddings())
    module = VdrGraph(transformer, head, pooling_of(backbone)).eval()
    return Graph(module, "vdr", _INPUTS, ("weights", "bag", "vector"), str(manifest["base"]))


def graph_of_model(model: str) -> Graph:
    """The `Graph` of a whole VDR model: weights and bag of tokens."""
    encoder = load_encoder(Path(model).expanduser())
    (of_queries, head), (of_passages, own) = towers(encoder)
    other = None if own is head else (of_passages.model, own)
    module = VdrGraph(of_queries.model, head, of_passages=other).eval()
    return Graph(module, "vdr", _INPUTS, ("weights", "bag"), model)
