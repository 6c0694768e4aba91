"""What `hyblink train` makes is what the settings take: bi-encoders and cross-encoders, adapters and whole models."""

from __future__ import annotations

import re
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support.training import tiny_model, tiny_rows

from hyblink.app.bootstrap import build
from hyblink.app.core.errors import EncoderUnavailableError
from hyblink.app.core.manifest import MANIFEST, read_json, write_json
from hyblink.app.core.settings import EncodeSettings, Settings
from hyblink.app.core.types.collections import CollectionSpec
from hyblink.app.core.types.ranking import RerankRequest, Signal
from hyblink.app.core.types.search import SearchRequest
from hyblink.app.encoders.dense.transformer import DenseTransformer, load_sentence_transformer
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
    with pytest.raises(EncoderUnavailableError, match="is being loaded"):
        encoder.score("what tiger sleeps", [("", TEXTS[0])], time.perf_counter() + 60)
    encoder.load()
    scores = encoder.score("what tiger sleeps", [("", text) for text in TEXTS], time.perf_counter() + 60)
    assert np.isfinite(scores).all()
    monkeypatch.setattr("hyblink.app.encoders.reranker.cpu_has_bf16", lambda: True)
    bf16 = Reranker(str(folder), EncodeSettings(), tmp_path / "onnx")
    assert bf16.precision == "bf16"
    bf16.load()
    assert np.allclose(bf16.score("what tiger sleeps", [("", text) for text in TEXTS], float("inf")), scores, atol=0.05)
    monkeypatch.setattr("hyblink.app.encoders.reranker.cpu_has_bf16", lambda: False)
    int8 = Reranker(str(folder), EncodeSettings(), tmp_path / "onnx")
    assert int8.precision == "int8"
    pairs = [("", text) for text in TEXTS]
    int8.load()
    near = int8.score("what tiger sleeps", pairs, time.perf_counter() + 60)
    assert np.allclose(near, scores, atol=0.05 * max(1.0, float(np.abs(scores).max())))
    assert not np.array_equal(near, scores)
    # What is kept is checked at every start, and made anew where it is damaged or of an earlier release's form.
    (kept,) = [path for path in (tmp_path / "onnx").iterdir() if path.is_dir()]
    manifest = read_json(kept / MANIFEST)
    (kept / "model.onnx").write_bytes(b"damaged")
    for _ in range(2):
        again = Reranker(str(folder), EncodeSettings(), tmp_path / "onnx")
        again.load()
        assert np.array_equal(again.score("what tiger sleeps", pairs, time.perf_counter() + 60), near)
        assert read_json(kept / MANIFEST) == manifest
        write_json(kept / MANIFEST, {**manifest, "format": manifest["format"] - 1})
    assert Reranker(str(folder), EncodeSettings()).precision == "fp32"
    with pytest.raises(EncoderUnavailableError, match="int8 needs a folder"):
        Reranker(str(folder), EncodeSettings(cross_encoder_precision="int8")).load()
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
    with pytest.raises(EncoderUnavailableError, match="cannot load the cross-encoder"):
        Reranker(str(tmp_path / "nothing"), EncodeSettings()).load()
    # What a thread could not load is said to whoever searches after it.
    broken = Reranker(str(tmp_path / "nothing"), EncodeSettings())
    said = "being loaded"
    while "being loaded" in said:
        with pytest.raises(EncoderUnavailableError) as caught:
            broken.score("q", [("", "t")], 1e18)
        said = str(caught.value)
        time.sleep(0.05)
    assert "cannot load the cross-encoder" in said
    assert torch.is_grad_enabled()


def test_a_model_that_onnx_cannot_hold_is_computed_in_fp32(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("no such operator")

    folder = trained("cross_encoder", "full", base, tmp_path)
    monkeypatch.setattr("hyblink.app.encoders.runtimes.export._write", refuse)
    monkeypatch.setattr("hyblink.app.encoders.reranker.cpu_has_bf16", lambda: False)
    pairs = [("", text) for text in TEXTS]
    encoder = Reranker(str(folder), EncodeSettings(), tmp_path / "onnx")
    encoder.load()
    plain = Reranker(str(folder), EncodeSettings(cross_encoder_precision="fp32"))
    plain.load()
    assert np.array_equal(encoder.score("tiger", pairs, 1e18), plain.score("tiger", pairs, 1e18))
    with pytest.raises(EncoderUnavailableError, match="cannot be written as ONNX: no such operator"):
        Reranker(str(folder), EncodeSettings(cross_encoder_precision="int8"), tmp_path / "onnx").load()
    assert not [path for path in (tmp_path / "onnx").iterdir() if path.is_dir()]


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

    encoder.__dict__["_loaded"] = SimpleNamespace(score=slow)
    scores = encoder.score("tiger", [("", "a " * n) for n in range(40, 0, -1)], time.perf_counter() + 0.32)
    done = np.isfinite(scores)
    assert 16 <= done.sum() < 40
    assert done.sum() % 16 == 0
    assert done[: done.sum()].all()  # the first ones, not the short ones

    def broken(pairs: list[tuple[str, str]], idf: object) -> list[float]:
        raise IndexError("position 600 of 512")

    encoder.__dict__["_loaded"] = SimpleNamespace(score=broken)
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
