"""ONNX export of dense encoders: from token ids to L2-normalised vectors."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from hyblink.app.core.errors import InvalidInputError
from hyblink.app.encoders.family import Graph
from hyblink.app.encoders.loading.in_torch import load_sentence_transformer


class DenseGraph(nn.Module):  # type: ignore[misc]
    """The exported module: token ids (B, L) to L2-normalised vectors (B, D)."""

    def __init__(self, transformer: Any, pooling: str) -> None:
        super().__init__()
        self.transformer, self.pooling = transformer, pooling

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        states_BLH = self.transformer(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return pooled(states_BLH, attention_mask, self.pooling)


def pooled(states_BLH: torch.Tensor, mask_BL: torch.Tensor, pooling: str) -> torch.Tensor:
    """The L2-normalised text vectors (B, D) by `cls` or `mean` pooling of the token states."""
    if pooling == "cls":
        return nn.functional.normalize(states_BLH[:, 0], dim=-1)
    mask_BL1 = mask_BL[:, :, None].to(states_BLH.dtype)
    return nn.functional.normalize((states_BLH * mask_BL1).sum(1) / mask_BL1.sum(1), dim=-1)


def pooling_of(model: Any) -> str:
    """The pooling of a sentence-transformers model, `mean` or `cls`.

    Raises InvalidInputError if it has another pooling or further modules, which cannot be exported.
    """
    others = {type(item).__name__ for item in model} - {"Transformer", "Pooling", "Normalize"}
    if others:
        raise InvalidInputError("modules that are not exported", received=sorted(others), expected="a pooling only")
    modes = {str(getattr(item, "pooling_mode", "")) for item in model} - {""}
    if not modes <= {"mean", "cls"} or len(modes) != 1:
        raise InvalidInputError("a pooling that is not exported", received=sorted(modes), expected="mean or cls")
    return modes.pop()


def graph(model: str) -> Graph:
    """The `Graph` of a dense encoder. A LoRA adapter is merged into its base."""
    made = load_sentence_transformer(model, "cpu")
    module = DenseGraph(made[0].model, pooling_of(made)).eval()
    return Graph(module, "dense", ("input_ids", "attention_mask"), ("vector",), model)
