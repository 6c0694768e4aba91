"""The BGE models that are recommended, built as graphs, against the ONNX files that they were published as."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from support.bge import NAMES, bge
from tokenizers import Tokenizer

from hyblink.app.core.settings import EncodeSettings
from hyblink.app.encoders.dense.transformer import DenseTransformer

TEXTS = [
    "Swifts sleep on the wing and land only to breed.",
    "雨燕在飞行中睡觉，只为繁殖而降落。",
    "what is the deadline",
    "",
    "Feed the starter twice a day and keep it warm. " * 20,
    "图书馆几点开门？" * 30,
]


@pytest.mark.services
@pytest.mark.parametrize("name", list(NAMES))
def test_a_built_graph_gives_the_published_vectors(name: str) -> None:
    folder = bge(name)
    original = onnxruntime.InferenceSession(str(folder / "original.onnx"))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)

    def published(text: str) -> Any:
        made = tokenizer.encode(text)
        given = {"input_ids": made.ids, "attention_mask": made.attention_mask, "token_type_ids": made.type_ids}
        out = original.run(None, {key: np.array([value], dtype=np.int64) for key, value in given.items()})[0][0, 0]
        return out / np.linalg.norm(out)

    want = np.stack([published(text) for text in TEXTS])
    found = DenseTransformer(EncodeSettings(dense_model=str(folder)), "fp32").encode_passages([""] * len(TEXTS), TEXTS)
    assert np.abs(found - want).max() < 2e-5
    rough = DenseTransformer(EncodeSettings(dense_model=str(folder)), "int8").encode_passages([""] * len(TEXTS), TEXTS)
    assert (rough * want).sum(1).min() > 0.98
