"""A VDR encoder trained whole is a collection's encoder: its own vocabulary, its own forward pass."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from support.training import tiny_model, tiny_rows

from hyblink.app.application import App
from hyblink.app.bootstrap import build
from hyblink.app.core.errors import EncoderUnavailableError, InvalidInputError
from hyblink.app.core.manifest import read_json, write_json
from hyblink.app.core.settings import EncodeSettings, Settings
from hyblink.app.core.types.collections import CollectionSpec
from hyblink.app.core.types.ranking import Signal, VdrMode
from hyblink.app.core.types.search import SearchRequest
from hyblink.app.encoders.vdr.head import explain, load_encoder, towers
from hyblink.app.encoders.vdr.model import VdrModel
from hyblink.app.operations.collections import ensure_collection
from hyblink.app.operations.encoding import encode_now
from hyblink.training.data.rows import write_jsonl
from hyblink.training.families.vdr.trainable import VdrTrainable
from hyblink.training.recipes import recipe
from hyblink.training.run import train_model

ROUNDING = 2.0**-8
"""Weights keep nine significant bits."""
DOCUMENTS = [
    {"id": "tiger", "title": "", "text": "the tiger sleeps and a tiger waits."},
    {"id": "river", "title": "", "text": "the river shines and a river grows."},
    {"id": "long", "title": "the market", "text": "the river shines. " * 40 + "a guitar sings."},
]


@pytest.fixture(scope="module", params=["shared", "separate"])
def model(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    folder = tmp_path_factory.mktemp("vdr")
    write_jsonl(folder / "rows.jsonl", tiny_rows(24))
    changes = {"steps": "30", "batch": "8", "negatives": "2", "precision": "fp32", "learning_rate": "0.003"}
    changes["separate_towers"] = str(request.param == "separate").lower()
    config = recipe("vdr", {"base": str(tiny_model(folder / "base")), "query_top_k": "8", **changes})
    train_model(config, [folder / "rows.jsonl"], folder / "mine", cache=folder / "states")
    return folder / "mine"


@pytest.fixture(scope="module")
def app(model: Path, tmp_path_factory: pytest.TempPathFactory) -> App:
    settings = Settings(data_dir=tmp_path_factory.mktemp("data"), encode=EncodeSettings(vdr_model=str(model)))
    app = build(settings)
    ensure_collection(app, CollectionSpec("c", chunk_chars=0, chunk_overlap_chars=0))
    app.documents.bulk("c", DOCUMENTS, encode=False)
    encode_now(app, "c")
    return app


def test_the_generation_is_bound_to_the_model_and_its_vocabulary(app: App, model: Path) -> None:
    record = app.catalog.engine("c").record
    assert re.fullmatch(r"bag:mine:[0-9a-f]{12}", record.vdr_encoder)
    assert record.vdr_model == record.vdr_encoder.replace("bag", "vdr") + ":256"
    encoder = load_encoder(model)
    both = app.encoders.hybrid_encoder(record).encode_passages([""], [DOCUMENTS[0]["text"]])
    reference = encoder.encode_document([DOCUMENTS[0]["text"]]).to_dense()[0].numpy()
    terms = both.weights[0]
    assert np.allclose(terms.weights, reference[terms.ids], rtol=ROUNDING)
    asked = app.encoders.hybrid_encoder(record).encode_query("what tiger sleeps")
    assert asked.weights is not None
    queried = encoder.encode_query(["what tiger sleeps"]).to_dense()[0].numpy()
    largest = asked.weights.ids[np.argsort(-asked.weights.weights)[:5]]
    assert np.allclose(
        asked.weights.weights[np.isin(asked.weights.ids, largest)], queried[np.sort(largest)], rtol=ROUNDING
    )


def test_separate_towers_begin_alike_and_part(model: Path, tmp_path: Path) -> None:
    (of_queries, head), (of_passages, other) = towers(load_encoder(model))
    separate = read_json(model / "manifest.json")["config"]["separate_towers"]
    assert (head is not other) is (of_queries is not of_passages) is separate
    text = "the tiger sleeps"
    encoder = load_encoder(model)
    score = float(encoder.encode_query(text).to_dense() @ encoder.encode_document(text).to_dense())
    assert sum(one.contribution for one in explain(encoder, text, text)) == pytest.approx(score, rel=1e-4)
    if not separate:
        return
    ours, theirs = of_queries.model.state_dict(), of_passages.model.state_dict()
    assert any(not torch.equal(ours[name], theirs[name]) for name in ours)
    config = recipe("vdr", {"base": str(model.parent / "base" / "model"), "separate_towers": "true"})
    student = VdrTrainable(config, tmp_path / "states")
    parameters = student.parameters()
    pairs = [(name, f"passages.{name}") for name in parameters if not name.startswith("passages.")]
    assert all(torch.equal(parameters[one], parameters[two]) for one, two in pairs)
    assert len(pairs) * 2 == len(parameters)
    # A router that leads elsewhere, to other classes, or to towers of different vocabularies.
    for spoil, said in (
        (lambda told: told["types"].update({"document_0_Transformer": "os.system"}), "unknown classes"),
        (
            lambda told: told["structure"].update({"image": ["query_0_Transformer", "query_1_VdrHead"]}),
            "not a VDR model",
        ),
        (lambda told: told["structure"].update({"query": ["query_1_VdrHead"]}), "not a VDR model"),
    ):
        copy = tmp_path / said.replace(" ", "-")
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(model, copy)
        told = read_json(copy / "router_config.json")
        spoil(told)
        write_json(copy / "router_config.json", told)
        with pytest.raises(EncoderUnavailableError, match=said):
            load_encoder(copy)
    copy = tmp_path / "other-words"
    shutil.copytree(model, copy)
    words = copy / "document_0_Transformer" / "tokenizer.json"
    words.write_text(words.read_text().replace("tiger", "lion"))
    with pytest.raises(EncoderUnavailableError, match="different vocabularies"):
        load_encoder(copy)
    with pytest.raises(InvalidInputError, match="separate towers are for whole VDR encoders"):
        recipe("vdr_head", {"separate_towers": "true"})


def test_full_scores_are_the_models_own(app: App, model: Path) -> None:
    encoder = load_encoder(model)
    query = encoder.encode_query(["what tiger sleeps"]).to_dense()[0].numpy()
    kept = np.where(query >= np.sort(query)[-32], query, 0.0)  # search.query_weights
    found = app.search.search("c", SearchRequest("what tiger sleeps", signals=(Signal.VDR,), vdr="full")).hits
    assert len(found) == 3
    raw = {hit.doc_id: hit.passages[0].signals[0].raw for hit in found}
    for document in DOCUMENTS[:2]:
        reference = encoder.encode_document([document["text"]]).to_dense()[0].numpy()
        assert raw[document["id"]] == pytest.approx(float(kept @ reference), rel=2 * ROUNDING)


@pytest.mark.parametrize("mode", ["full", "alpha", "beta", "bag"])
def test_every_mode_explains_itself_in_the_models_own_tokens(app: App, mode: VdrMode) -> None:
    request = SearchRequest("what tiger sleeps", signals=(Signal.VDR,), vdr=mode, explain=True)
    lines = {hit.doc_id: hit.passages[0].signals[0] for hit in app.search.search("c", request).hits}
    tiger = lines["tiger"]
    assert sum(token.contribution for token in tiger.tokens) == pytest.approx(tiger.raw, rel=1e-4)
    assert {"tiger", "sleeps"} <= {token.token for token in tiger.tokens}


def test_texts_are_read_in_their_order_whatever_their_length(app: App) -> None:
    full = app.encoders.hybrid_encoder(app.catalog.engine("c").record)
    texts = [one["text"] for one in DOCUMENTS]
    together = full.encode_passages([""] * 3, texts).weights
    for text, terms in zip(texts, together, strict=True):
        (alone,) = full.encode_passages([""], [text]).weights
        assert alone.ids.tolist() == terms.ids.tolist()
        assert np.allclose(alone.weights, terms.weights, rtol=ROUNDING)


def test_a_folder_that_is_no_vdr_model_is_refused(model: Path, tmp_path: Path) -> None:
    base = model.parent / "base" / "model"
    with pytest.raises(EncoderUnavailableError, match="not a VDR model"):
        VdrModel(base, EncodeSettings()).encode_query("tiger")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "modules.json").write_text("[]")
    with pytest.raises(EncoderUnavailableError, match="no safetensors file"):
        _ = VdrModel(tmp_path / "empty", EncodeSettings()).id
