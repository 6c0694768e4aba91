"""What `hyblink train` makes is what the settings take: bi-encoders and cross-encoders, adapters and whole models."""

from __future__ import annotations

import re
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from support.training import tiny_model, tiny_rows

from hyblink.app.bootstrap import build
from hyblink.app.core.errors import EncoderUnavailableError
from hyblink.app.core.manifest import MANIFEST, read_json, write_json, write_manifest
from hyblink.app.core.settings import EncodeSettings, Settings
from hyblink.app.core.types.collections import CollectionSpec
from hyblink.app.core.types.ranking import RerankRequest, Signal
from hyblink.app.core.types.search import SearchRequest
from hyblink.app.encoders.dense.transformer import DenseTransformer
from hyblink.app.encoders.loading.in_torch import load_sentence_transformer
from hyblink.app.encoders.loading.once import Once
from hyblink.app.encoders.reranker import Reranker
from hyblink.app.operations.collections import ensure_collection
from hyblink.app.operations.encoding import encode_now
from hyblink.training.data.rows import write_jsonl
from hyblink.training.recipes import recipe
from hyblink.training.run import train_model

TEXTS = ["the tiger sleeps and a tiger waits.", "a river shines."]
SMALL = {
    "steps": "10",
    "batch": "4",
    "negatives": "2",
    "learning_rate": "0.003",
    "frozen_layers": "0",
    "lora_rank": "4",
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("base"))


def trained(name: str, tuning: str, base: Path, folder: Path, **changes: str) -> Path:
    folder.mkdir(exist_ok=True)
    write_jsonl(folder / "rows.jsonl", tiny_rows(24))
    config = recipe(name, {"base": str(base), "tuning": tuning, **SMALL, **changes})
    train_model(config, [folder / "rows.jsonl"], folder / "mine", cache=folder / "states")
    return folder / "mine"


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_a_trained_bi_encoder_is_a_dense_model(tuning: str, base: Path, tmp_path: Path) -> None:
    folder = trained("dense", tuning, base, tmp_path)
    encode = EncodeSettings(dense_model=str(folder), precision="fp32", max_seq_tokens=64)
    encoder = DenseTransformer(encode)
    assert re.fullmatch(r"dense:mine:[0-9a-f]{12}:64", encoder.id)
    other = trained("dense", tuning, base, tmp_path / "again", seed="1")
    assert DenseTransformer(EncodeSettings(dense_model=str(other), max_seq_tokens=64)).id != encoder.id
    assert encoder.dimension == 32
    vectors = encoder.encode_passages(["", ""], TEXTS)
    before = load_sentence_transformer(str(base), "cpu").encode(TEXTS, normalize_embeddings=True)
    assert np.abs(vectors - before).max() > 1e-3  # it has learned something
    if tuning == "full":
        after = load_sentence_transformer(str(folder), "cpu").encode(TEXTS, normalize_embeddings=True)
        assert np.allclose(vectors, after, atol=1e-5)
    else:
        from peft import PeftModel

        plain = load_sentence_transformer(str(base), "cpu")
        plain[0].model = PeftModel.from_pretrained(plain[0].model, str(folder))  # not merged
        assert np.allclose(vectors, plain.encode(TEXTS, normalize_embeddings=True), atol=1e-5)
    app = build(Settings(data_dir=tmp_path / "data", encode=encode))
    try:
        ensure_collection(app, CollectionSpec("c"))
        app.documents.bulk("c", [{"id": str(at), "text": text} for at, text in enumerate(TEXTS)], encode=False)
        encode_now(app, "c")
        record = app.catalog.engine("c").record
        assert (record.dense_encoder, record.vdr_model) == (encoder.id, "")  # the shipped head reads another model
        assert app.search.search("c", SearchRequest(TEXTS[1], signals=(Signal.DENSE,))).hits[0].doc_id == "1"
    finally:
        app.close()


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_a_trained_cross_encoder_re_ranks(
    tuning: str, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = trained("cross_encoder", tuning, base, tmp_path)
    encode = EncodeSettings(cross_encoder=str(folder), cross_encoder_precision="fp32")
    encoder = Reranker(str(folder), encode)
    assert encoder.id.startswith("cross:mine:")
    # The first call waits for the model, and the deadline counts from then on.
    assert np.isfinite(encoder.score("what tiger sleeps", [("", TEXTS[0])], time.perf_counter() + 0.05)).all()
    scores = encoder.score("what tiger sleeps", [("", text) for text in TEXTS], time.perf_counter() + 60)
    assert np.isfinite(scores).all()
    pairs = [("", text) for text in TEXTS]
    assert Reranker(str(folder), EncodeSettings()).precision == "fp32", "it was not measured"
    for settings, tolerance in (
        (EncodeSettings(runtime="torch", cross_encoder_precision="fp32"), 1e-5),
        (EncodeSettings(cross_encoder_precision="bf16"), 0.05),
        (EncodeSettings(cross_encoder_precision="int8"), 0.05),
    ):
        other = Reranker(str(folder), settings)
        near = other.score("what tiger sleeps", pairs, float("inf"))
        assert np.allclose(near, scores, atol=tolerance * max(1.0, float(np.abs(scores).max())))
        assert not np.array_equal(near, scores), "it was another computation"
    monkeypatch.setattr("hyblink.app.encoders.runtimes.choice.can_be_built", lambda _: False)
    monkeypatch.setattr("hyblink.app.encoders.runtimes.choice.cpu_has_bf16", lambda: True)
    assert Reranker(str(folder), EncodeSettings()).precision == "bf16", "torch on a CPU that has it"
    monkeypatch.undo()
    app = build(Settings(data_dir=tmp_path / "data", encode=encode))
    try:
        ensure_collection(app, CollectionSpec("c"))
        app.documents.bulk("c", [{"id": str(at), "text": text} for at, text in enumerate(TEXTS)], encode=False)
        app.encoders.cross().load()
        request = SearchRequest("tiger river", signals=(Signal.BM25,), rerank=RerankRequest(2, 10_000))
        result = app.search.search("c", request)
        assert result.rerank is not None
        assert (result.rerank.model, result.rerank.scored) == (encoder.id, 2)
    finally:
        app.close()


def test_a_changed_adapter_is_not_loaded(base: Path, tmp_path: Path) -> None:
    folder = trained("dense", "lora", base, tmp_path)
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(EncoderUnavailableError, match="does not match its sha256"):
        load_sentence_transformer(str(folder), "cpu")
    broken = Reranker(str(tmp_path / "nothing"), EncodeSettings())
    for _ in range(2):  # every search says it
        with pytest.raises(EncoderUnavailableError, match="cannot load .*nothing"):
            broken.score("q", [("", "t")], 1e18)
    assert torch.is_grad_enabled()


def test_a_model_of_which_no_graph_can_be_built_runs_in_torch(
    base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = trained("cross_encoder", "full", base, tmp_path)
    pairs = [("", text) for text in TEXTS]
    plain = Reranker(str(folder), EncodeSettings()).score("tiger", pairs, 1e18)
    manifest, config = read_json(folder / MANIFEST), read_json(folder / "config.json")
    write_json(folder / "config.json", {**config, "hidden_act": "silu"})
    write_manifest(folder, manifest["files"], **{key: manifest[key] for key in manifest if key != "files"})
    found = Reranker(str(folder), EncodeSettings()).score("tiger", pairs, 1e18)
    assert not np.allclose(found, plain)
    in_torch = EncodeSettings(runtime="torch", cross_encoder_precision="fp32")
    assert np.array_equal(found, Reranker(str(folder), in_torch).score("tiger", pairs, 1e18))
    assert "runs in torch: an unknown activation" in caplog.text
    for settings in (EncodeSettings(runtime="onnx"), EncodeSettings(cross_encoder_precision="int8")):
        with pytest.raises(EncoderUnavailableError, match="an unknown activation.*silu"):
            Reranker(str(folder), settings).load()


def test_what_has_not_learned_to_score_is_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(EncoderUnavailableError, match="not a cross-encoder"):
        Reranker(str(base), EncodeSettings()).load()
    dense = trained("dense", "lora", base, tmp_path)
    with pytest.raises(EncoderUnavailableError, match="not a cross-encoder"):
        Reranker(str(dense), EncodeSettings()).load()


def test_time_that_runs_out_within_a_group_leaves_the_whole_group_unscored(base: Path, tmp_path: Path) -> None:
    folder = trained("cross_encoder", "full", base, tmp_path)
    encoder = Reranker(str(folder), EncodeSettings(cross_encoder_precision="fp32"))
    encoder.load()
    calls = []

    def slow(pairs: list[tuple[str, str]], idf: object) -> list[float]:
        calls.append(len(pairs))
        time.sleep(0.05)
        return [1.0] * len(pairs)

    encoder._loaded = Once(lambda: (cast("Any", SimpleNamespace(score=slow)), 4), "it")
    scores = encoder.score("tiger", [("", "a " * n) for n in range(40, 0, -1)], time.perf_counter() + 0.32)
    done = np.isfinite(scores)
    assert 16 <= done.sum() < 40
    assert done.sum() % 16 == 0
    assert done[: done.sum()].all()  # the first ones, not the short ones

    def broken(pairs: list[tuple[str, str]], idf: object) -> list[float]:
        raise IndexError("position 600 of 512")

    encoder._loaded = Once(lambda: (cast("Any", SimpleNamespace(score=broken)), 4), "it")
    with pytest.raises(EncoderUnavailableError, match="the cross-encoder failed: IndexError: position 600"):
        encoder.score("tiger", [("", "a")], time.perf_counter() + 60)


def test_an_adapter_on_an_adapter_keeps_both(base: Path, tmp_path: Path) -> None:
    first = trained("dense", "lora", base, tmp_path / "first")
    second = trained("dense", "lora", first, tmp_path / "second")
    own = load_sentence_transformer(str(second), "cpu").encode(TEXTS)
    of_first = load_sentence_transformer(str(first), "cpu").encode(TEXTS)
    from peft import PeftModel

    both = load_sentence_transformer(str(first), "cpu")
    both[0].model = PeftModel.from_pretrained(both[0].model, str(second))
    assert np.allclose(own, both.encode(TEXTS), atol=1e-5)
    assert np.abs(own - of_first).max() > 1e-3
