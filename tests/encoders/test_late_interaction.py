"""Late interaction: what it computes, how it is trained, exported, explained, and what it refuses."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.training import tiny_model, tiny_rows, tiny_rows_file

from hyblink.app.application import App
from hyblink.app.bootstrap import build
from hyblink.app.core.errors import EncoderUnavailableError, InvalidInputError
from hyblink.app.core.manifest import read_json, write_manifest
from hyblink.app.core.settings import EncodeSettings, Settings
from hyblink.app.core.types.arrays import TermWeights, TokenIdf
from hyblink.app.core.types.collections import CollectionSpec
from hyblink.app.core.types.documents import Document
from hyblink.app.core.types.ranking import RerankRequest, Signal
from hyblink.app.core.types.search import SearchRequest
from hyblink.app.core.weights import round_weights
from hyblink.app.encoders.late_interaction.model import in_onnx, in_torch
from hyblink.app.encoders.loading.in_torch import load_sentence_transformer
from hyblink.app.encoders.reranker import Reranker
from hyblink.app.operations.collections import ensure_collection
from hyblink.training.data.batches import draw
from hyblink.training.data.rows import read_rows, write_jsonl
from hyblink.training.families.late_interaction.trainable import LateInteractionTrainable
from hyblink.training.recipes import recipe
from hyblink.training.run import train_model
from hyblink.training.run_config import RunConfig

QUERY = "what sleeps and when"


def config(base: Path, **changes: str) -> RunConfig:
    small = {"steps": "60", "batch": "4", "negatives": "2", "kept_layers": "2", "head_learning_rate": "0.003"}
    return recipe("late_interaction", {"base": str(base), **small, **changes})


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("base"), layers=3)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_rows_file(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def model(base: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    manifest = train_model(config(base), [data], folder / "late", cache=folder / "states", dev=data)
    assert (manifest["kind"], manifest["layers"]) == ("late-interaction", 2)
    assert manifest["metrics"]["loss_last"] < manifest["metrics"]["loss_first"]
    return folder / "late"


def plainly(base: Path, folder: Path, query: str, passage: str, idf: Mapping[int, float] | None = None) -> float:
    """The score by the equation of the module, one token after the other."""
    backbone = load_sentence_transformer(str(base), "cpu").eval()
    head = {name: tensor.float() for name, tensor in load_file(folder / "model.safetensors").items()}

    def read(text: str) -> tuple[list[int], torch.Tensor]:
        features = backbone.tokenizer([text], return_tensors="pt")
        with torch.no_grad():
            states = backbone[0].model(**features, output_hidden_states=True).hidden_states[2][0]
        return features["input_ids"][0, 1:-1].tolist(), states[1:-1]

    (ids, asked), (_, found) = read(query), read(passage)
    total = of_all = 0.0
    for token, state in zip(ids, asked, strict=True):
        q = head["project.weight"] @ state
        learned = float(head["weigh.weight"][0] @ state + head["weigh.bias"][0])
        weight = (idf or {}).get(token, float(head["idf"][token])) * float(np.exp(2 * np.tanh(learned / 2)))
        cosines = [float(torch.cosine_similarity(q, head["project.weight"] @ other, dim=0)) for other in found]
        total += weight * max(cosines)
        of_all += weight
    return float(head["scale"]) * total / of_all


@pytest.mark.parametrize("runtime", ["torch", "onnx"])
def test_the_score_is_the_papers_weighted_sum_and_is_told_token_by_token(
    base: Path, data: Path, model: Path, runtime: str
) -> None:
    path = str(model)
    late = in_torch(path, "cpu", 64) if runtime == "torch" else in_onnx(path, EncodeSettings(), "fp32", 64)
    row = read_rows(data)[0]
    texts = [one.joined for one in (*row.positives, *row.negatives)]
    scores = late.predict([(row.query, text) for text in texts], batch_size=2)
    for text, score in zip(texts, scores, strict=True):
        assert score == pytest.approx(plainly(base, model, row.query, text), abs=1e-3)
        lines = late.alignment(row.query, text)
        assert sum(one.contribution for one in lines) == pytest.approx(float(score), abs=1e-3)
        assert [one.token for one in lines] == row.query.split()
        assert {one.nearest for one in lines} <= {*text.replace(".", " . ").split()}
    assert late.predict([("", "the tiger sleeps"), ("tiger", "")]).tolist() == [0, 0]
    # A collection's own idf takes the place of the training passages', for the tokens that it has.
    tokenizer = load_sentence_transformer(str(base), "cpu").tokenizer
    first, *_, last = sorted({*tokenizer(row.query, add_special_tokens=False)["input_ids"]})
    idf = TermWeights(np.array([first, last], dtype=np.int32), np.array([5.0, 0.25], dtype=np.float32))
    own = late.predict([(row.query, text) for text in texts], idf=idf)
    assert np.abs(own - scores).max() > 0.01
    for text, score in zip(texts, own, strict=True):
        assert score == pytest.approx(plainly(base, model, row.query, text, {first: 5.0, last: 0.25}), abs=1e-3)
        told = sum(one.contribution for one in late.alignment(row.query, text, idf))
        assert told == pytest.approx(float(score), abs=1e-3)
    nothing = TermWeights(np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.float32))
    assert np.allclose(late.predict([(row.query, text) for text in texts], idf=nothing), scores, atol=1e-4)
    assert late.alignment("", "the tiger") == late.alignment("tiger", "") == []


def test_it_learns_what_the_first_stage_lacks(base: Path, data: Path, tmp_path: Path) -> None:
    student = LateInteractionTrainable(config(base, residual="0.5"), tmp_path / "states")
    student.set_statistics({"rows": [text.joined for row in read_rows(data) for text in row.positives]})
    drawn = draw(read_rows(data), batch=3, negatives=2, seed=0, step=0)
    plain = []
    for one in drawn:
        scores = student.scores(one.row.query, [text.joined for text in one.passages]) + 0.5 * torch.tensor(one.teacher)
        plain.append(float(-torch.log_softmax(scores.detach(), dim=0)[0]))
    assert student.backward(drawn, 1.0) == pytest.approx(np.mean(plain), abs=1e-6)
    weight = student.head.project.weight
    assert weight.grad is not None
    expected = float(weight.grad[1, 2])
    moved = []
    for step in (1e-3, -1e-3):
        with torch.no_grad():
            weight[1, 2] += step
        moved.append(student.backward(drawn, 0.0))
        with torch.no_grad():
            weight[1, 2] -= step
    assert (moved[0] - moved[1]) / 2e-3 == pytest.approx(expected, abs=1e-3), "the gradient, by differences"
    for bad, said in (({"tuning": "lora"}, "expected head"), ({"loss": "bce"}, "only a listwise loss")):
        with pytest.raises(InvalidInputError, match=said):
            config(base, **bad)
    write_jsonl(tmp_path / "bare.jsonl", tiny_rows(8))
    with pytest.raises(InvalidInputError, match="first stage's scores"):
        train_model(config(base), [tmp_path / "bare.jsonl"], tmp_path / "no", cache=tmp_path / "states")
    assert not (tmp_path / "no").exists()


def app_with(model: str, base: Path, folder: Path, precision: str) -> App:
    encode = EncodeSettings(
        cross_encoder=model, cross_encoder_precision=precision, dense_model=str(base), vdr_model="none"
    )
    return build(Settings(data_dir=folder, encode=encode))


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_searches_are_re_ranked_by_it_and_say_which_token_answered_which(
    precision: str, base: Path, model: Path, tmp_path: Path
) -> None:
    app = app_with(str(model), base, tmp_path, precision)
    ensure_collection(app, CollectionSpec("c"))
    passages = [
        "the tiger sleeps and the river moves .",
        "a tiger and a castle .",
        "when the doctor sings the tiger waits .",
    ]
    app.documents.upsert("c", [Document(f"d{n}", text=text) for n, text in enumerate(passages)])
    tokenizer = load_sentence_transformer(str(base), "cpu").tokenizer
    bags = [set(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in passages]
    asked = tokenizer("what tiger sleeps", add_special_tokens=False)["input_ids"]
    counts = {token: sum(token in bag for bag in bags) for token in asked}
    idf = {t: float(round_weights([np.log(1 + (3 - n + 0.5) / (n + 0.5))])[0]) for t, n in counts.items() if n}
    assert len(idf) == 2, "nothing of the collection says what 'what' is"
    app.encoders.cross().load()
    request = SearchRequest("what tiger sleeps", signals=(Signal.BM25,), explain=True, rerank=RerankRequest(10, 5000))
    result = app.search.search("c", request)
    assert result.rerank is not None
    assert (result.rerank.scored, result.rerank.error) == (3, "")
    for hit in result.hits:
        (line,) = [one for one in hit.passages[0].signals if one.signal is Signal.CROSS]
        assert line.raw is not None
        # In int8 a text's states depend on those that it is computed with: the tokens are computed alone.
        near = 0.05 if precision == "int8" else 1e-3
        assert sum(one.contribution for one in line.tokens) == pytest.approx(line.raw, abs=near)
        assert {one.token.split(" → ")[0] for one in line.tokens} == {"what", "tiger", "sleeps"}
        exact = plainly(base, model, "what tiger sleeps", hit.passages[0].text, idf)
        assert line.raw == pytest.approx(exact, abs=1e-3 if precision == "fp32" else 0.3)
        assert all(one.contribution == pytest.approx(one.query_weight * one.passage_weight) for one in line.tokens)
    longer = "the tiger sleeps " * 60  # than the model has positions
    assert np.isfinite(app.encoders.cross().score("what tiger", [("", longer)], float("inf"))).all()
    app.close()


def test_a_folder_that_does_not_fit_is_refused(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "late"
    folder.mkdir()
    tensors = load_file(model / "model.safetensors")
    save_file({**tensors, "idf": tensors["idf"][:5].clone()}, str(folder / "model.safetensors"))
    known = read_json(model / "manifest.json")
    write_manifest(folder, ["model.safetensors"], **{k: v for k, v in known.items() if k not in {"files", "created"}})
    with pytest.raises(EncoderUnavailableError, match="cannot load the late interaction"):
        Reranker(str(folder), EncodeSettings(cross_encoder_precision="fp32")).load()
    (folder / "model.safetensors").write_bytes(b"x")
    with pytest.raises(EncoderUnavailableError, match="damaged"):
        Reranker(str(folder), EncodeSettings(cross_encoder_precision="fp32")).load()


def test_a_deadline_leaves_passages_unscored(model: Path) -> None:
    encoder = Reranker(str(model), EncodeSettings(cross_encoder_precision="fp32"))
    encoder.load()
    passages = [("", "the tiger sleeps .")] * 40
    assert np.isnan(encoder.score(QUERY, passages, time.perf_counter() - 1)).all()
    scores = encoder.score(QUERY, passages, time.perf_counter() + 60)
    assert np.isfinite(scores).all()
    assert np.ptp(scores) < 1e-4
    plain = encoder.contributions(QUERY, "", "the tiger sleeps .")
    assert plain
    # Another vocabulary's idf says nothing here.
    foreign = TokenIdf("bag:another", TermWeights(np.arange(200, dtype=np.int32), np.full(200, 9.0, dtype=np.float32)))
    said = encoder.contributions(QUERY, "", "the tiger sleeps .", foreign)
    assert [one.token for one in said] == [one.token for one in plain]
    assert [one.contribution for one in said] == pytest.approx([one.contribution for one in plain], rel=1e-4)
    assert np.allclose(encoder.score(QUERY, passages, float("inf"), foreign), scores, atol=1e-4)
