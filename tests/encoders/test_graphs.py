"""Built graphs against torch: tiny random models of every architecture, adapters, the cache on disk."""

from __future__ import annotations

import gc
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf

from hyblink.app.encoders.graphs import cache as cache_module
from hyblink.app.encoders.graphs.architectures.architecture import UnknownGraphError
from hyblink.app.encoders.graphs.architectures.known import ARCHITECTURES
from hyblink.app.encoders.graphs.blocks import relative_buckets
from hyblink.app.encoders.graphs.cache import GraphCache
from hyblink.app.encoders.graphs.quantized import LARGEST, LARGEST_ACTIVATION, quantized
from hyblink.app.encoders.graphs.weights import Source

SIZES: dict[str, Any] = {
    "vocab_size": 300, "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 128,
    "num_labels": 1,
}  # fmt: skip
SHIFTED = {**SIZES, "max_position_embeddings": 514, "pad_token_id": 1}
WHOLE = {**SIZES, "max_position_embeddings": 512}
DISTIL: dict[str, Any] = {"vocab_size": 300, "dim": 64, "n_layers": 3, "n_heads": 4, "hidden_dim": 128, "num_labels": 1}

MODELS: dict[str, tuple[Any, Any, Any]] = {
    "bert": (hf.BertConfig(**WHOLE), hf.BertModel, hf.BertForSequenceClassification),
    "bert with gelu_new": (
        hf.BertConfig(**WHOLE, hidden_act="gelu_new"), hf.BertModel, hf.BertForSequenceClassification,
    ),
    "bert with relu": (hf.BertConfig(**WHOLE, hidden_act="relu"), hf.BertModel, hf.BertForSequenceClassification),
    "electra": (
        hf.ElectraConfig(**WHOLE, embedding_size=32), hf.ElectraModel, hf.ElectraForSequenceClassification,
    ),
    "distilbert": (hf.DistilBertConfig(**DISTIL), hf.DistilBertModel, hf.DistilBertForSequenceClassification),
    "roberta": (
        hf.RobertaConfig(**SHIFTED, type_vocab_size=1), hf.RobertaModel, hf.RobertaForSequenceClassification,
    ),
    "xlm-roberta": (
        hf.XLMRobertaConfig(**SHIFTED, type_vocab_size=1), hf.XLMRobertaModel, hf.XLMRobertaForSequenceClassification,
    ),
    "mpnet": (hf.MPNetConfig(**SHIFTED), hf.MPNetModel, hf.MPNetForSequenceClassification),
}  # fmt: skip
LENGTHS = (512, 1, 2, 33, 300)


def made(name: str, output: str, folder: Path) -> Any:
    """A random model of an architecture, saved to `folder`."""
    config, states, score = MODELS[name]
    torch.manual_seed(0)
    model = (states if output == "states" else score)(config).eval()
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    return model


def batch(padding: int, *, two_types: bool) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    ids = np.full((len(LENGTHS), max(LENGTHS)), padding, dtype=np.int64)
    mask = np.zeros(ids.shape, dtype=np.int32)
    for row, length in enumerate(LENGTHS):
        ids[row, :length], mask[row, :length] = rng.integers(5, 300, length), 1
    types = np.zeros_like(ids)
    types[:, 10:] = int(two_types)
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}


def in_graph(graph: Any, given: dict[str, Any]) -> Any:
    session = graph.session
    return session.run(None, {item.name: given[item.name] for item in session.get_inputs()})[0]


def in_torch(model: Any, given: dict[str, Any], output: str) -> Any:
    types = {} if model.config.model_type in {"distilbert", "mpnet"} else {"token_type_ids": given["token_type_ids"]}
    told = {"input_ids": given["input_ids"], "attention_mask": given["attention_mask"].astype(np.int64), **types}
    with torch.inference_mode():
        out = model(**{name: torch.from_numpy(value) for name, value in told.items()})
    return out.last_hidden_state.numpy() if output == "states" else out.logits[:, 0].numpy()


def test_every_architecture_is_tried() -> None:
    assert set(ARCHITECTURES) == {config.model_type for config, *_ in MODELS.values()}


@pytest.mark.parametrize("output", ["states", "score"])
@pytest.mark.parametrize("name", list(MODELS))
def test_a_graph_equals_torch(name: str, output: Any, tmp_path: Path) -> None:
    model = made(name, output, tmp_path / "model")
    shifted = MODELS[name][0].model_type in {"roberta", "xlm-roberta", "mpnet"}
    two_types = MODELS[name][0].model_type in {"bert", "electra"}
    given = batch(1 if shifted else 0, two_types=two_types)
    want = in_torch(model, given, output)
    cache = GraphCache(tmp_path / "cache")
    kept = given["attention_mask"] > 0 if output == "states" else slice(None)
    got = in_graph(cache.open(Source(tmp_path / "model"), "fp32", output), given)
    assert np.abs(got - want)[kept].max() < 1e-5
    for precision in ("int8", "int8_all"):
        got = in_graph(cache.open(Source(tmp_path / "model"), precision, output), given)
        assert 0 < np.abs(got - want)[kept].max() < 0.1 * np.abs(want)[kept].max()


def test_in_int8_a_text_does_not_depend_on_the_texts_beside_it(tmp_path: Path) -> None:
    made("bert", "states", tmp_path / "model")
    session = GraphCache(tmp_path / "cache").open(Source(tmp_path / "model"), "int8", "states")
    given = batch(0, two_types=False)
    together = in_graph(session, given)
    for row, length in enumerate(LENGTHS):
        alone = in_graph(session, {name: value[row : row + 1, :length] for name, value in given.items()})
        # Sums are rounded in another order, and a value at the edge of a step may take the step beside it.
        assert np.abs(alone[0] - together[row, :length]).max() < 0.02


def test_lower_layers_only(tmp_path: Path) -> None:
    model = made("bert", "states", tmp_path / "model")
    model.encoder.layer = model.encoder.layer[:2]
    given = batch(0, two_types=False)
    got = in_graph(GraphCache(tmp_path / "cache").open(Source(tmp_path / "model", layers=2), "fp32", "states"), given)
    kept = given["attention_mask"] > 0
    assert np.abs(got - in_torch(model, given, "states"))[kept].max() < 1e-5
    with pytest.raises(UnknownGraphError, match="more layers"):
        GraphCache(tmp_path / "cache").open(Source(tmp_path / "model", layers=4), "fp32", "states")


@pytest.mark.parametrize(
    "options", [{}, {"use_rslora": True}, {"rank_pattern": {"query": 2}, "alpha_pattern": {"dense": 3}}]
)
def test_an_adapter_is_merged_as_peft_merges_it(options: dict[str, Any], tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    model = made("bert", "score", tmp_path / "model")
    config = LoraConfig(
        r=4, lora_alpha=8, target_modules=["query", "key", "value", "dense"], modules_to_save=["pooler", "classifier"],
        layers_to_transform=[1, 2], **options,
    )  # fmt: skip
    adapted = get_peft_model(model, config)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name or "modules_to_save" in name:
            parameter.data = 0.1 * torch.randn_like(parameter)
    adapted.save_pretrained(tmp_path / "adapter")
    given = batch(0, two_types=True)
    want = in_torch(adapted.merge_and_unload(), given, "score")
    source = Source(tmp_path / "model", (tmp_path / "adapter",))
    assert np.abs(in_graph(GraphCache(tmp_path / "cache").open(source, "fp32", "score"), given) - want).max() < 1e-5


def test_tensors_in_other_types_and_in_several_files(tmp_path: Path) -> None:
    model = made("bert", "states", tmp_path / "one")
    given = batch(0, two_types=False)
    cache = GraphCache(tmp_path / "cache")
    kept = given["attention_mask"] > 0
    model.save_pretrained(tmp_path / "many", max_shard_size="100KB")
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 2
    got = in_graph(cache.open(Source(tmp_path / "many"), "fp32", "states"), given)
    assert np.abs(got - in_torch(model, given, "states"))[kept].max() < 1e-5
    for kind in (torch.bfloat16, torch.float16):
        model = model.to(kind)
        model.save_pretrained(tmp_path / str(kind))
        got = in_graph(cache.open(Source(tmp_path / str(kind)), "fp32", "states"), given)
        assert np.abs(got - in_torch(model.float(), given, "states"))[kept].max() < 1e-5


def test_the_cache_is_checked_and_rebuilt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hyblink.app.encoders.graphs.cache._INLINE", 0)
    made("bert", "states", tmp_path / "model")
    folder, source = tmp_path / "cache", Source(tmp_path / "model")
    given = batch(0, two_types=False)
    want = in_graph(GraphCache(folder).open(source, "int8", "states"), given)
    (graph,), (words,) = folder.glob("*.onnx"), folder.glob("words-*.bin")
    untouched = graph.stat().st_mtime_ns
    assert np.array_equal(in_graph(GraphCache(folder).open(source, "int8", "states"), given), want)
    assert graph.stat().st_mtime_ns == untouched, "it was there"
    for path in (graph, words):
        for damage in (path.read_bytes()[:-100], b"\0" * path.stat().st_size, b""):
            path.write_bytes(damage)
            assert np.array_equal(in_graph(GraphCache(folder).open(source, "int8", "states"), given), want)
        path.unlink()
        assert np.array_equal(in_graph(GraphCache(folder).open(source, "int8", "states"), given), want)
    made("bert", "states", tmp_path / "model")  # written again, the same
    GraphCache(folder).open(source, "int8", "states")
    assert len(list(folder.glob("*.onnx"))) == 1
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps({**config, "hidden_act": "relu"}))
    assert not np.array_equal(in_graph(GraphCache(folder).open(source, "int8", "states"), given), want)


def test_tables_that_are_damaged_while_a_process_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process reads a table once, and again if the file has changed."""
    monkeypatch.setattr("hyblink.app.encoders.graphs.cache._INLINE", 0)
    made("bert", "states", tmp_path / "model")
    folder, source, cache = tmp_path / "cache", Source(tmp_path / "model"), GraphCache(tmp_path / "cache")
    given = batch(0, two_types=False)
    want = in_graph(cache.open(source, "fp32", "states"), given)
    (words,) = folder.glob("words-*.bin")
    whole = words.read_bytes()
    for damage in (whole[:-100], b"\0" * len(whole), b""):
        words.unlink()
        words.write_bytes(damage)
        gc.collect()
        assert np.array_equal(in_graph(cache.open(source, "fp32", "states"), given), want)
        assert words.read_bytes() == whole


def test_a_graph_that_does_not_open_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that another release of ONNX Runtime has written."""
    made("bert", "states", tmp_path / "model")
    source, given, session = Source(tmp_path / "model"), batch(0, two_types=False), cache_module._session
    want = in_graph(GraphCache(tmp_path / "cache").open(source, "fp32", "states"), given)
    opened: list[str] = []

    def first_fails(model: str | bytes) -> Any:
        opened.append(str(model))
        if len(opened) == 1:
            raise RuntimeError("unsupported")
        return session(model)

    monkeypatch.setattr(cache_module, "_session", first_fails)
    assert np.array_equal(in_graph(GraphCache(tmp_path / "cache").open(source, "fp32", "states"), given), want)
    assert len(opened) == 2
    monkeypatch.setattr(cache_module, "_session", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        GraphCache(tmp_path / "cache").open(source, "fp32", "states")


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    made("bert", "states", tmp_path / "model")
    (tmp_path / "file").write_text("no folder")
    given = batch(0, two_types=False)
    got = in_graph(GraphCache(tmp_path / "file").open(Source(tmp_path / "model"), "fp32", "states"), given)
    assert got.shape == (len(LENGTHS), 512, 64)


def test_one_open_serves_all_threads(tmp_path: Path) -> None:
    made("bert", "states", tmp_path / "model")
    cache, found = GraphCache(tmp_path / "cache"), []

    def use() -> None:
        session = cache.open(Source(tmp_path / "model"), "fp32", "states")
        found.append((session, in_graph(session, batch(0, two_types=False))))

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(session) for session, _ in found}) == 1
    assert all(np.array_equal(one, found[0][1]) for _, one in found)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"model_type": "llama"}, "unknown architecture"),
        ({"hidden_act": "swish"}, "unknown activation"),
        ({"position_embedding_type": "relative_key"}, "relative positions"),
        ({"is_decoder": True}, "decoder"),
        ({"num_hidden_layers": 9}, "a tensor is missing"),
        ({"num_attention_heads": None}, "not understood"),
    ],
)
def test_what_cannot_be_built_is_said_with_the_way_out(changes: dict[str, Any], what: str, tmp_path: Path) -> None:
    made("bert", "states", tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(UnknownGraphError, match=what) as error:
        GraphCache(tmp_path / "cache").open(Source(tmp_path / "model"), "fp32", "states")
    assert "pip install 'hyblink[train]'" in str(error.value)


def test_quantised_weights_fit_a_byte_and_are_near() -> None:
    weight = np.random.default_rng(0).standard_normal((384, 64)).astype(np.float32)
    weights, scales = quantized(weight)
    assert weights.dtype == np.int8
    assert np.abs(weights).max() <= LARGEST
    assert 2 * LARGEST_ACTIVATION * LARGEST < 2**15, "two products of bytes fit 16 bits"
    plain = np.rint(weight / (np.abs(weight).max(0) / LARGEST)) * (np.abs(weight).max(0) / LARGEST)
    assert np.square(weights * scales - weight).sum() <= np.square(plain - weight).sum()


def test_buckets_are_those_of_mpnet() -> None:
    from transformers.models.mpnet.modeling_mpnet import MPNetEncoder

    places = torch.arange(514)
    want = MPNetEncoder.relative_position_bucket(places[None, :] - places[:, None], num_buckets=32)
    assert np.array_equal(relative_buckets(514, 32, 128), want.numpy())
