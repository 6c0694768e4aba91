"""Generations, profiles, export and import."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.encoders import FakeDense
from support.generations import OtherDense, answers, filled, rebuild
from support.services import SOAK

from hyblink.app.application import App
from hyblink.app.core.errors import ConflictError, CorruptionError, InvalidInputError, NotFoundError
from hyblink.app.core.ports.views import DenseView, LexicalView
from hyblink.app.core.types.ranking import RankingProfile, Scored, Signal
from hyblink.app.core.types.search import SearchRequest
from hyblink.app.operations.collections import ensure_collection
from hyblink.app.operations.encoding import encode_now
from hyblink.app.operations.generations import rebuild as rebuild_generation
from hyblink.app.operations.generations import roll_back
from hyblink.indexer.generations.build import differences, self_retrieval_problems
from hyblink.indexer.transfer import export_collection, import_collection, read_export


def test_a_new_encoder_makes_a_new_generation_and_rolling_back_brings_the_old_answers(
    make_app: Callable[..., App],
) -> None:
    app = filled(make_app)
    before = answers(app)
    assert rebuild(app, OtherDense()) == "g000002"
    result = app.search.search("c", SearchRequest("alpha gamma", k=30))
    assert result.generation == "g000002"
    assert [(h.doc_id, h.score) for h in result.hits] != before
    of_old = app.search.search("c", SearchRequest("alpha gamma", k=30, generation="g000001"))
    assert [(h.doc_id, h.score) for h in of_old.hits] == before, "one that does not answer can be asked"
    assert of_old.generation == "g000001"
    assert app.search.search("c", SearchRequest("alpha", generation="g000002")).generation == "g000002"
    for bad, error in (("g000009", NotFoundError), ("../g000001", InvalidInputError)):
        with pytest.raises(error):
            app.search.search("c", SearchRequest("alpha", generation=bad))
    assert roll_back(app, "c") == "g000001"
    assert answers(app) == before
    app.catalog.publish("c", "g000002")
    assert app.catalog.current("c") == "g000002"


def test_the_same_encoder_copies_vectors_and_changes_nothing(make_app: Callable[..., App]) -> None:
    app = filled(make_app)
    before = answers(app)

    encoded: list[int] = []

    class Counts(FakeDense):
        def encode_passages(self, titles, texts):  # type: ignore[no-untyped-def]
            encoded.append(len(texts))
            return super().encode_passages(titles, texts)

    app.encoders.add_dense(Counts())
    rebuild(app)
    assert len(encoded) == 1, "a sample, to see that the vectors are this encoder's"
    assert encoded[0] <= 8
    assert [d for d, _ in answers(app)] == [d for d, _ in before]
    assert np.allclose([s for _, s in answers(app)], [s for _, s in before])


def test_an_unfinished_build_is_never_served_and_leaves_nothing(make_app: Callable[..., App]) -> None:
    app = filled(make_app)
    before = answers(app)

    class Fails(OtherDense):
        def encode_passages(self, titles, texts):  # type: ignore[no-untyped-def]
            raise CorruptionError("half way")

    with pytest.raises(CorruptionError):
        rebuild(app, Fails())
    assert app.catalog.current("c") == "g000001"
    assert [g.id for g in app.catalog.generations("c")] == ["g000001"]
    assert answers(app) == before


def documents_of(app: App) -> dict[str, tuple[str, str, str]]:
    reader = app.catalog.engine("c").store.reader()
    return {
        one.document.id: (
            one.document.title,
            one.document.text,
            json.dumps(dict(one.document.metadata), sort_keys=True),
        )
        for one in reader.export()
    }


def test_writes_and_searches_go_on_while_a_generation_is_built(make_app: Callable[..., App]) -> None:
    app = filled(make_app)
    other = make_app("data")
    before = answers(other)
    entered, release = threading.Event(), threading.Event()

    class Slow(OtherDense):
        def encode_passages(self, titles, texts):  # type: ignore[no-untyped-def]
            entered.set()
            release.wait(20)
            return super().encode_passages(titles, texts)

    other.encoders.add_dense(OtherDense())
    builder = threading.Thread(target=rebuild, args=(app, Slow()))
    builder.start()
    assert entered.wait(20)
    assert answers(other) == before
    changed = {"id": "doc5", "title": "new", "text": "another text altogether", "metadata": {"colour": "alpha"}}
    five = other.documents.get("c", "doc6")
    only_metadata = {
        "id": "doc6",
        "title": five.title,
        "text": five.text,
        "lang": five.lang,
        "metadata": {"tags": ["x"]},
    }
    written = other.documents.bulk("c", [{"id": "x", "text": "zebra"}, changed, only_metadata], encode=False)
    assert [item.status for item in written.items] == ["created", "updated", "updated"]
    other.documents.delete("c", ["doc1", "doc2"])
    other.documents.bulk("c", [{"id": "doc2", "text": "it is back"}], encode=False)
    expected = documents_of(other)
    with pytest.raises(ConflictError, match="is being built already"):
        rebuild_generation(other, "c")
    release.set()
    builder.join()
    result = other.search.search("c", SearchRequest("zebra"))
    assert (result.generation, result.hits[0].doc_id) == ("g000002", "x")
    assert documents_of(app) == expected
    engine = app.catalog.engine("c")
    counts = engine.store.reader().counts()
    assert counts.passages == counts.encoded > 0
    assert engine.check() == []
    with pytest.raises(NotFoundError):
        app.documents.get("c", "doc1")


def test_a_generation_that_another_overtakes_is_given_up(make_app: Callable[..., App]) -> None:
    app = filled(make_app)
    rebuild(app)
    other = make_app("data")

    class Meanwhile(OtherDense):
        def encode_passages(self, titles, texts):  # type: ignore[no-untyped-def]
            if other.catalog.current("c") == "g000002":
                other.catalog.publish("c", "g000001")
            return super().encode_passages(titles, texts)

    with pytest.raises(ConflictError, match="another generation was published"):
        rebuild(app, Meanwhile())
    assert app.catalog.current("c") == "g000001"
    assert [g.id for g in app.catalog.generations("c")] == ["g000001", "g000002"]


def test_nothing_is_lost_by_writing_through_many_builds(make_app: Callable[..., App]) -> None:
    """A client writes, changes and deletes all the time; three generations are built beside and published."""
    app, writer = filled(make_app), make_app("data")
    model = documents_of(app)
    stop = threading.Event()
    failures: list[BaseException] = []

    def write() -> None:
        draw = np.random.default_rng(5)
        try:
            number = 0
            while not stop.is_set():
                number += 1
                one = f"doc{draw.integers(0, 150)}"
                if draw.random() < 0.25:
                    writer.documents.delete("c", [one])
                    model.pop(one, None)
                    continue
                metadata = {"n": int(draw.integers(0, 3))}
                text = f"alpha text {draw.integers(0, 4)} of {one}"
                writer.documents.bulk("c", [{"id": one, "text": text, "metadata": metadata}], encode=False)
                model[one] = ("", text, json.dumps(metadata, sort_keys=True))
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        encoders = [OtherDense(), FakeDense(), OtherDense()]
        for at, encoder in enumerate(encoders):
            writer.encoders.add_dense(encoder)
            assert rebuild(app, encoder) == f"g00000{at + 2}"
    finally:
        stop.set()
        thread.join()
    assert failures == []
    assert documents_of(app) == model
    assert app.catalog.current("c") == "g000004"
    encode_now(app, "c")
    assert app.catalog.engine("c").check() == []


def test_what_differs_is_seen(make_app: Callable[..., App], monkeypatch: pytest.MonkeyPatch) -> None:
    app = filled(make_app)
    rebuild(app)
    old, new = app.catalog.engine("c", "g000001"), app.catalog.engine("c", "g000002")
    assert differences(old, new) == self_retrieval_problems(new) == []
    new.store.delete(["doc3"])
    assert differences(old, new) == ["119 documents instead of 120", "their documents are others"]
    old.store.delete(["doc4"])
    assert differences(old, new) == ["their documents are others"]
    snapshot = new.snapshot()
    dense, bm25 = snapshot.dense, snapshot.bm25
    assert dense is not None
    turned = replace(snapshot, dense=_Turned(dense))
    monkeypatch.setattr(type(new), "snapshot", lambda _: turned)
    (problem,) = self_retrieval_problems(new)
    assert "are not found by their own vectors" in problem
    deaf = replace(snapshot, bm25=_Deaf(bm25))
    monkeypatch.setattr(type(new), "snapshot", lambda _: deaf)
    problems = self_retrieval_problems(new)
    assert len(problems) == 20
    assert all("is not found by its own words" in one for one in problems)


class _Turned:
    """A dense index whose search looks the wrong way."""

    def __init__(self, view: DenseView) -> None:
        self.score = view.score
        self._search = view.search

    def search(self, query, k, allowed):  # type: ignore[no-untyped-def]
        return self._search(-query, k, allowed)


class _Deaf:
    """A BM25 index that finds nothing."""

    def __init__(self, view: LexicalView) -> None:
        self.score = view.score

    def search(self, terms, k, allowed):  # type: ignore[no-untyped-def]
        return Scored(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32))


def test_switching_under_load_never_mixes_generations(make_app: Callable[..., App]) -> None:
    """Each generation's scores are its own: an answer that names one must have exactly its hits."""
    app = filled(make_app)
    expected = {"g000001": answers(app)}
    rebuild(app, OtherDense())
    expected["g000002"] = answers(app)
    stop = threading.Event()
    wrong: list[str] = []
    seen: set[str] = set()

    def ask() -> None:
        while not stop.is_set():
            result = app.search.search("c", SearchRequest("alpha gamma", k=30))
            seen.add(result.generation)
            if [(h.doc_id, h.score) for h in result.hits] != expected[result.generation]:
                wrong.append(result.generation)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(1000 if SOAK else 100):
        app.catalog.publish("c", f"g00000{number % 2 + 1}")
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert seen == {"g000001", "g000002"}


def test_old_generations_are_dropped(make_app: Callable[..., App]) -> None:
    app = filled(make_app)
    for _ in range(3):
        rebuild(app, keep=2)
    assert [g.id for g in app.catalog.generations("c")] == ["g000003", "g000004"]
    with pytest.raises(NotFoundError, match="expected one of g000003, g000004"):
        app.catalog.publish("c", "g000001")
    with pytest.raises(InvalidInputError, match="bad generation id"):
        app.catalog.publish("c", "../../etc")


def test_nothing_to_roll_back_to(make_app: Callable[..., App]) -> None:
    with pytest.raises(ConflictError, match="no earlier generation"):
        roll_back(filled(make_app), "c")


def test_profiles_are_versioned_and_belong_to_the_generation(make_app: Callable[..., App]) -> None:
    app = filled(make_app)
    default = answers(app)
    only_words = RankingProfile(weights={Signal.BM25: 1.0}, normalization="none")
    saved = app.catalog.save_profile("c", only_words)
    assert saved.version == 1
    tuned = app.search.search("c", SearchRequest("alpha gamma", k=30))
    assert tuned.profile == saved
    alone = app.search.search("c", SearchRequest("alpha gamma", k=30, signals=(Signal.BM25,)))
    assert [h.doc_id for h in tuned.hits][:10] == [h.doc_id for h in alone.hits][:10]
    assert app.catalog.save_profile("c", RankingProfile()).version == 2
    assert answers(app) == default
    app.catalog.use_profile("c", 1)
    assert app.search.search("c", SearchRequest("alpha", k=1)).profile.version == 1
    with pytest.raises(NotFoundError, match="no such ranking profile"):
        app.catalog.use_profile("c", 9)


def test_export_and_import_without_encoding(make_app: Callable[..., App], tmp_path: Path) -> None:
    app = filled(make_app)
    app.documents.bulk("c", [{"id": "late", "text": "alpha waits for its vector"}], encode=False)
    before = answers(app)
    folder = tmp_path / "export"
    assert export_collection(app.catalog.engine("c"), app.catalog.spec("c"), folder) == 121
    with pytest.raises(ConflictError, match="exists already"):
        export_collection(app.catalog.engine("c"), app.catalog.spec("c"), folder)
    other = make_app("elsewhere")
    manifest, spec = read_export(folder)
    ensure_collection(other, spec)
    assert import_collection(folder, manifest, other.catalog.engine("c")) == 121
    assert [d for d, _ in answers(other)] == [d for d, _ in before]
    assert np.allclose([s for _, s in answers(other)], [s for _, s in before], atol=1e-6)
    assert (
        other.catalog.engine("c").store.reader().counts().encoded
        == app.catalog.engine("c").store.reader().counts().encoded
    )
    (folder / "vectors.f2").write_bytes(b"short")
    with pytest.raises(CorruptionError, match="wrong size"):
        read_export(folder)
    with pytest.raises(NotFoundError, match="not an exported folder"):
        read_export(tmp_path)
