"""The VDR head in NumPy against the head in torch, for every setting."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from hyblink.app.encoders.dense.backbone import TextStates
from hyblink.app.encoders.vdr.head import VdrHead
from hyblink.app.encoders.vdr.in_torch import TorchInference
from hyblink.app.encoders.vdr.inference import VdrInference

SETTINGS: tuple[dict[str, Any], ...] = (
    {"semantic": False, "lexical": True},
    {"semantic": False, "lexical": True, "normalize": True},
    {},
    {"lexical": True},
    {"lexical": True, "normalize": True},
    {"project": True, "own_path": True, "tied_norm": True},
    {"project": True, "own_path": True},
    {"pooling": "mean"},
    {"pooling": "top_mean", "pool_k": 3},
    {"layers": 2, "lexical": True},
)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("query", [False, True])
def test_both_give_the_same_weights(settings: dict[str, Any], query: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    head = VdrHead(300, 16, shift=7, heads=2, intermediate=32, **settings)
    for parameter in head.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    head.usable[[3, 50, 120]] = False
    head.save(str(tmp_path))
    embeddings = torch.nn.Embedding(300, 16)
    embeddings.weight.data *= 0.3
    rng = np.random.default_rng(0)
    nothing = np.zeros(0, dtype=np.float32)
    texts = [
        TextStates(nothing, ids, rng.standard_normal((length, 16)).astype(np.float32))
        for length in (2, 9, 40, 290)
        for ids in [np.concatenate([[2], rng.integers(7, 300, length - 2), [3]]).astype(np.int32)]
    ]
    inside = SimpleNamespace(word_embeddings=lambda: embeddings, model=SimpleNamespace(device="cpu"))
    want = TorchInference(tmp_path, cast("Any", inside), passage_weights=20).weights(texts, query=query)
    made = VdrInference(tmp_path, embeddings.weight.detach().numpy(), passage_weights=20)
    found = made.weights(texts, query=query)
    for text, one, other in zip(texts, want, found, strict=True):
        assert np.array_equal(one.ids, other.ids), f"{len(text.ids_L)} tokens"
        assert np.allclose(one.weights, other.weights, rtol=2**-7, atol=1e-6), "to the rounding of kept weights"
    assert (made.prior_idf(np.array([8, 50], dtype=np.int32)) is None) is not settings.get("lexical", False)
