"""ONNX export of cross-encoders: from token ids of pairs to scores."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from hyblink.app.encoders.cross_encoder.transformer import load_scorer
from hyblink.app.encoders.family import Graph
from hyblink.app.encoders.loading.models import base_of

_WINDOW = 256


class CrossEncoderGraph(nn.Module):  # type: ignore[misc]
    """The exported module: token ids (B, L) of pairs to scores (B,)."""

    def __init__(self, classifier: Any) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor
    ) -> torch.Tensor:
        made = self.classifier(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
        return made.logits[:, 0]


def graph(model: str) -> Graph:
    """The `Graph` of a cross-encoder. A LoRA adapter is merged into its base."""
    module = CrossEncoderGraph(load_scorer(model, "cpu", _WINDOW)[0].model).eval()
    return Graph(module, "cross", ("input_ids", "attention_mask", "token_type_ids"), ("scores",), base_of(model))
