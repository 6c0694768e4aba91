"""Exported models against the models themselves, in onnxruntime: fp32 to rounding, int8 by how much it costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.training import tiny_model, tiny_rows

from hyblink.app.core.errors import ConflictError, InvalidInputError
from hyblink.app.core.manifest import check_manifest
from hyblink.app.core.settings import EncodeSettings
from hyblink.app.core.types.arrays import VectorArray
from hyblink.app.encoders.dense.backbone import Backbone
from hyblink.app.encoders.loading.in_torch import load_sentence_transformer
from hyblink.app.encoders.reranker import Reranker
from hyblink.app.encoders.runtimes.torch_transformer import TorchTransformer
from hyblink.app.encoders.vdr.adapter import DEFAULT
from hyblink.app.encoders.vdr.head import load_encoder
from hyblink.app.encoders.vdr.in_torch import TorchInference, features_of
from hyblink.training.data.rows import write_jsonl
from hyblink.training.recipes import recipe
from hyblink.training.run import train_model
from hyblink.training.run_config import SHIPPED_BACKBONE

onnxruntime = pytest.importorskip("onnxruntime")
from hyblink.app.encoders.runtimes.export import export  # noqa: E402

TEXTS = [
    "Swifts sleep on the wing and land only to breed.",
    "A SWIFT code names a bank in an international transfer, and so does a BIC.",
    "what is the deadline",
    "Feed the starter twice a day and keep it warm. " * 8,
]


def run(folder: Path, texts: list[Any], **more: Any) -> list[Any]:
    """What the exported graph says of texts or pairs."""
    from tokenizers import Tokenizer

    manifest = check_manifest(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding()
    tokenizer.enable_truncation(256)
    encoded = tokenizer.encode_batch(texts)
    given = {
        "input_ids": np.array([one.ids for one in encoded], dtype=np.int64),
        "attention_mask": np.array([one.attention_mask for one in encoded], dtype=np.int64),
        "token_type_ids": np.array([one.type_ids for one in encoded], dtype=np.int64),
        **more,
    }
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    assert [one.name for one in session.get_inputs()] == manifest["inputs"]
    made: list[Any] = session.run(manifest["outputs"], {name: given[name] for name in manifest["inputs"]})
    return made


def cosine(one: VectorArray, other: VectorArray) -> Any:
    return (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)


@pytest.mark.parametrize("query", [False, True])
def test_the_shipped_vdr_adapter(query: bool, tmp_path: Path) -> None:
    assert export(str(DEFAULT), tmp_path / "fp32")["precision"] == "fp32"
    backbone = load_sentence_transformer(SHIPPED_BACKBONE, "cpu")
    transformer = TorchTransformer(backbone)
    head = TorchInference(DEFAULT, transformer, passage_weights=256).head
    found = dict(Backbone(transformer, window=256, max_tokens=256).states(TEXTS))
    states = [found[at] for at in range(len(TEXTS))]
    with torch.inference_mode():
        made = head(features_of(states), task="query" if query else "document")
    weights_BV, bag_BV, vectors_BD = run(tmp_path / "fp32", TEXTS, query=np.full(len(TEXTS), query))
    shift = head.shift
    assert np.allclose(weights_BV[:, shift:], made["vocabulary_embedding"], atol=1e-4)
    assert np.array_equal(bag_BV[:, shift:], made["bag"])
    assert not weights_BV[:, :shift].any()
    assert np.allclose(vectors_BD, [one.vector_D for one in states], atol=1e-4)
    if query:
        return
    export(str(DEFAULT), tmp_path / "int8", int8=True)
    assert (tmp_path / "int8" / "model.onnx").stat().st_size < 0.7 * (tmp_path / "fp32" / "model.onnx").stat().st_size
    rough_BV, rough_bag_BV, rough_BD = run(tmp_path / "int8", TEXTS, query=np.full(len(TEXTS), query))
    assert np.array_equal(rough_bag_BV, bag_BV)
    assert cosine(rough_BV, weights_BV).min() > 0.99
    assert cosine(rough_BD, vectors_BD).min() > 0.95
    with pytest.raises(ConflictError, match="exists already"):
        export(str(DEFAULT), tmp_path / "int8")


def test_every_kind_of_trained_model(tmp_path: Path) -> None:
    base = tiny_model(tmp_path / "base")
    rows = tiny_rows(12)
    write_jsonl(tmp_path / "rows.jsonl", rows)
    texts = [row.positives[0].text for row in rows[:4]]
    small = {"base": str(base), "steps": "4", "batch": "4", "negatives": "2", "learning_rate": "0.003"}
    for name, more in {
        "vdr": {"precision": "fp32", "query_top_k": "8"},
        "svdr": {"precision": "fp32", "query_top_k": "8", "separate_towers": "true", "learning_rate": "0.01"},
        "dense": {"tuning": "lora", "lora_rank": "4"},
        "cross_encoder": {"tuning": "lora", "lora_rank": "4", "frozen_layers": "0"},
    }.items():
        folder = tmp_path / name
        train_model(recipe(name, {**small, **more}), [tmp_path / "rows.jsonl"], folder, cache=tmp_path / "states")
        export(str(folder), tmp_path / f"{name}-onnx")
    for name in ("vdr", "svdr"):  # the second has towers of its own for queries and for passages
        encoder = load_encoder(tmp_path / name)
        weights_BV, _ = run(tmp_path / f"{name}-onnx", texts, query=np.zeros(4, dtype=bool))
        assert np.allclose(weights_BV, encoder.encode_document(texts).to_dense().numpy(), atol=1e-4)
        asked_BV, _ = run(tmp_path / f"{name}-onnx", texts, query=np.ones(4, dtype=bool))
        assert np.allclose(asked_BV, encoder.encode_query(texts).to_dense().numpy(), atol=1e-4)
        assert np.allclose(asked_BV, weights_BV, atol=1e-4) is (name == "vdr")
    (vectors_BD,) = run(tmp_path / "dense-onnx", texts)
    dense = load_sentence_transformer(str(tmp_path / "dense"), "cpu")
    assert np.allclose(vectors_BD, dense.encode(texts, normalize_embeddings=True), atol=1e-4)
    (scores_B,) = run(tmp_path / "cross_encoder-onnx", [(rows[0].query, text) for text in texts])
    cross = Reranker(str(tmp_path / "cross_encoder"), EncodeSettings(cross_encoder_precision="fp32"))
    cross.load()
    assert np.allclose(scores_B, cross.score(rows[0].query, [("", text) for text in texts], 1e18), atol=1e-4)


def test_what_cannot_be_exported_is_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="nothing that can be exported"):
        export(str(tmp_path), tmp_path / "out")
    assert not (tmp_path / "out").exists()
