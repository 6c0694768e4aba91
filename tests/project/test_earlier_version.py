"""A data folder and model folders that version 0.1 wrote, when the code had other names, open and answer as before."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hyblink.app.access.authorize import authorize
from hyblink.app.access.keys import KeyStore, Role
from hyblink.app.application import App
from hyblink.app.bootstrap import build
from hyblink.app.core.settings import EncodeSettings, LinkSettings, SearchSettings, Settings
from hyblink.app.core.types.linking import LinkRequest, MentionContext, Text
from hyblink.app.core.types.ranking import RerankRequest
from hyblink.app.core.types.search import SearchRequest
from hyblink.app.encoders.dense.transformer import DenseTransformer
from hyblink.app.encoders.mention.tower import MentionTower
from hyblink.app.encoders.reranker import Reranker
from hyblink.app.encoders.vdr.model import VdrModel
from hyblink.app.operations.collections import fsck
from hyblink.app.operations.encoding import encode_now
from hyblink.app.operations.generations import roll_back
from hyblink.training.registry import ModelRegistry

KEPT = Path(__file__).resolve().parents[1] / "data" / "earlier_version.tar.gz"


@pytest.fixture
def earlier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What was expected then; the folder is the current one, for models name their base by a relative path."""
    with tarfile.open(KEPT) as packed:
        packed.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = json.loads((tmp_path / "expected.json").read_text())
    return found


@pytest.fixture
def app(earlier: dict[str, Any], tmp_path: Path) -> Iterator[App]:
    encode = EncodeSettings(dense_model="base", vdr_model="models/vdr-head", cross_encoder="models/late")
    link = LinkSettings(mention_encoder="models/mention", span_head="models/span")
    search = SearchSettings(deadline_ms=60_000)  # the first search loads the models
    made = build(
        Settings(data_dir=tmp_path / "data", models_dir=tmp_path / "models", encode=encode, link=link, search=search)
    )
    yield made
    made.close()


def test_the_collection_answers_as_it_did(app: App, earlier: dict[str, Any]) -> None:
    assert app.catalog.current("docs") == earlier["generation"]
    assert app.catalog.engine("docs").store.reader().counts().documents == earlier["documents"]
    assert fsck(app, "docs") == fsck(app, "things") == []
    for query, expected in earlier["answers"].items():
        hits = app.search.search("docs", SearchRequest(query, k=3, candidates=50)).hits
        assert [(hit.doc_id, round(hit.score, 6)) for hit in hits] == [(name, score) for name, score, _ in expected]
        for hit, (_, _, raw) in zip(hits, expected, strict=True):
            assert {line.signal: line.raw for line in hit.passages[0].signals} == pytest.approx(raw, rel=1e-5)


def test_profiles_generations_feedback_keys_and_jobs_are_there(app: App, earlier: dict[str, Any]) -> None:
    assert [profile.fusion for profile in app.catalog.profiles("docs")] == ["rrf"]
    assert len(app.catalog.generations("docs")) == 3
    assert [(one.query, one.grade) for one in app.feedback.judgements("docs")] == [("apple", 3)]
    key = authorize(
        KeyStore(app.catalog.records()), f"Bearer {earlier['key']}", Role.SEARCH, "docs", allow_anonymous=False
    )
    assert key is not None
    assert (key.role, key.note) == (Role.SEARCH, "old key")
    assert [(job.kind, job.state) for job in app.job_records.list()] == [("rebuild", "done")]
    roll_back(app, "docs")
    assert app.search.search("docs", SearchRequest("a silver window", k=1, candidates=50)).hits[0].doc_id == "late"


def test_it_is_written_to_and_links(app: App) -> None:
    app.documents.bulk("docs", [{"id": "new", "text": "the tiger sings."}], encode=False)
    assert encode_now(app, "docs") == 1
    assert app.search.search("docs", SearchRequest("tiger sings", k=1, candidates=50)).hits[0].doc_id == "new"
    links = (
        app.linker.link("things", LinkRequest((Text("what grows when the Guitar waits"),), threshold=0.0))
        .texts[0]
        .links
    )
    assert "guitar" in {one.entity_id for link in links for one in link.candidates}


def test_every_kind_of_model_loads(app: App, tmp_path: Path) -> None:
    registry = ModelRegistry(tmp_path / "models")
    kinds = {name: registry.show(name)["kind"] for name in registry.names()}
    assert kinds == {
        "cross-lora": "cross-encoder-lora", "dense-lora": "dense-lora", "late": "late-interaction",
        "mention": "mention-lora", "span": "span-head", "vdr-head": "vdr-head", "vdr-separate": "vdr", "vdr-whole": "vdr",
    }  # fmt: skip
    settings = EncodeSettings(dense_model="models/dense-lora")
    assert np.isfinite(DenseTransformer(settings).encode_query("the tiger waits")).all()
    for name in ("vdr-whole", "vdr-separate"):
        assert len(VdrModel(Path("models") / name, settings).encode_query("the tiger waits"))
    for name in ("cross-lora", "late"):
        scorer = Reranker(f"models/{name}", EncodeSettings(cross_encoder_precision="fp32"))
        scorer.load()
        assert np.isfinite(scorer.score("the tiger", [("", "a tiger waits"), ("", "a river")], float("inf"))).all()
    tower = MentionTower(Path("models/mention"), EncodeSettings(dense_model="base"))
    assert tower.encode([MentionContext("the", "tiger", "waits")]).shape == (1, 16)
    found = app.linker.link("things", LinkRequest((Text("the guitar waits"),), detectors=("elq",), threshold=0.0))
    assert found.missing == {}
    reranked = app.search.search("docs", SearchRequest("apple", k=2, candidates=50, rerank=RerankRequest(2, 10_000.0)))
    assert reranked.rerank is not None
