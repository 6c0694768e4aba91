"""Moments that are hard to hit: each is brought about on purpose."""

from __future__ import annotations

import json
import threading
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.documents import random_documents

from hyblink.app.analysis.analyzer import Analyzer
from hyblink.app.application import App
from hyblink.app.core.errors import ConflictError, InvalidInputError, NotFoundError
from hyblink.app.core.settings import IngestSettings
from hyblink.app.core.types.collections import CollectionSpec
from hyblink.app.core.types.ranking import RankingProfile, Signal
from hyblink.app.core.types.search import SearchRequest
from hyblink.app.engines.derived import AheadError
from hyblink.app.engines.embedded.bm25 import Bm25Index
from hyblink.app.engines.embedded.sparse.index import SparseIndex
from hyblink.app.operations.collections import ensure_collection, new_record
from hyblink.app.operations.encoding import encode_now
from hyblink.app.operations.generations import build_context, encoders_of
from hyblink.indexer.generations.build import build
from hyblink.indexer.ingest.chunking import windows
from hyblink.indexer.readers.files import FileSource


def filled(make_app: Callable[..., App]) -> App:
    app = make_app(ingest=IngestSettings(writer_wait_s=20))
    ensure_collection(app, CollectionSpec("c"))
    app.documents.bulk("c", random_documents(60, seed=8), encode=False)
    encode_now(app, "c")
    return app


def rebuild(app: App) -> str:
    record = new_record(app, app.catalog.spec("c"))
    return build(build_context(app), record, **encoders_of(app, record), keep=3).id


def test_a_write_that_waits_while_a_generation_is_published_goes_into_the_new_one(make_app: Callable[..., App]) -> None:
    app = filled(make_app)
    store = app.catalog.engine("c").store
    entered = threading.Event()

    def write() -> None:
        entered.set()
        app.documents.bulk("c", [{"id": "late", "text": "zebra"}], encode=False)
        app.documents.delete("c", ["doc1"])

    with store.writer():
        writer = threading.Thread(target=write)
        writer.start()
        assert entered.wait(10)
        time.sleep(0.2)
        assert rebuild(app) == "g000002"
    writer.join()
    assert app.documents.get("c", "late").text == "zebra"
    with pytest.raises(NotFoundError):
        app.documents.get("c", "doc1")


def test_resuming_compares_as_it_sorts(tmp_path: Path) -> None:
    for name in ("guide.md", "guide/intro.md", "guide-2.md", "zz.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"# {name}")
    items = list(FileSource(tmp_path).items())
    for at, item in enumerate(items):
        rest = [later.file for later in FileSource(tmp_path).items(item.position)]
        assert rest == [later.file for later in items[at + 1 :]]


def bm25_of(app: App) -> tuple[Path, Bm25Index]:
    folder = app.catalog.engine("c").folder / "bm25"
    return folder, Bm25Index(folder, Analyzer("english"))


@pytest.mark.parametrize("first_build", [True, False])
def test_a_bm25_write_that_died_after_its_commit_is_replayed_without_doubles(
    make_app: Callable[..., App], first_build: bool
) -> None:
    app = filled(make_app)
    folder, index = bm25_of(app)
    store = app.catalog.engine("c").store
    old = store.reader()
    if not first_build:
        index.catch_up(old)
    app.documents.bulk("c", [{"id": "new", "text": "zebra"}], encode=False)
    index.catch_up(store.reader())
    state = json.loads((folder / "applied.json").read_text())
    applied = 0 if first_build else old.change
    (folder / "applied.json").write_text(
        json.dumps({**state, "applied": applied, "target": state["applied"], "dirty": True})
    )
    app.documents.delete("c", ["doc3"])
    late = Bm25Index(folder, Analyzer("english"))
    with pytest.raises(AheadError):
        late.catch_up(old)
    reader = store.reader()
    late.catch_up(reader)
    assert late.check(reader) == []


def test_another_processs_newer_base_is_not_taken_for_ours(make_app: Callable[..., App]) -> None:
    app = filled(make_app)
    engine = app.catalog.engine("c")
    ours, theirs = (SparseIndex(engine.folder / "sparse", engine.record.vdr_encoder) for _ in range(2))
    old = engine.store.reader()
    ours.catch_up(old)
    app.documents.bulk("c", [{"id": "new", "text": "zebra"}], encode=False)
    new = engine.store.reader()
    theirs.rebuild(new)
    ours.rebuild(old)
    view = ours.catch_up(old)
    assert np.concatenate([segment.rows for segment, _ in view.parts]).tolist() == old.live_rows().tolist()
    assert theirs.check(new) == []
    assert SparseIndex(engine.folder / "sparse", engine.record.vdr_encoder).check(new) == []


def test_a_catch_up_that_fails_half_way_adds_nothing_twice(
    make_app: Callable[..., App], monkeypatch: pytest.MonkeyPatch
) -> None:
    app = filled(make_app)
    engine = app.catalog.engine("c")
    index = SparseIndex(engine.folder / "sparse-copy", engine.record.vdr_encoder)
    reader = engine.store.reader()

    def fails_in_the_middle(change: int):  # type: ignore[no-untyped-def]
        yield from type(reader).terms_since(reader, change)
        raise OSError("disk")

    monkeypatch.setattr(reader, "terms_since", fails_in_the_middle)
    with pytest.raises(OSError, match="disk"):
        index.catch_up(reader)
    monkeypatch.undo()
    index.catch_up(reader)
    assert index.check(reader) == []


def test_a_collection_made_anew_by_another_process_is_opened_anew(make_app: Callable[..., App]) -> None:
    one, two = filled(make_app), make_app()
    two.catalog.delete("c")
    ensure_collection(two, CollectionSpec("c"))
    assert one.documents.bulk("c", [{"id": "x", "text": "y"}], encode=False).items[0].status == "created"
    assert two.documents.get("c", "x").text == "y"


def test_background_encoding_waits_out_another_writer(make_app: Callable[..., App]) -> None:
    app = make_app(ingest=IngestSettings(writer_wait_s=0.05))
    app.jobs._models.retry_s = 0.05
    ensure_collection(app, CollectionSpec("c"))
    engine = app.catalog.engine("c")
    app.documents.bulk("c", random_documents(20, seed=1), encode=False)
    with engine.store.writer():
        app.jobs.encode("c", engine.record.id, [1])
        time.sleep(0.4)
        assert engine.store.reader().counts().encoded == 0
    assert app.jobs.wait(20)
    counts = engine.store.reader().counts()
    assert counts.encoded == counts.passages > 0


def test_composed_and_decomposed_text_meet(make_app: Callable[..., App]) -> None:
    app = make_app()
    ensure_collection(app, CollectionSpec("c", dense_encoder="none"))
    text = "café münchen naïve"
    app.documents.bulk("c", [{"id": form, "text": unicodedata.normalize(form, text)} for form in ("NFC", "NFD")])
    for form in ("NFC", "NFD"):
        query = unicodedata.normalize(form, "münchen")
        hits = app.search.search("c", SearchRequest(query, signals=(Signal.BM25,))).hits
        assert {hit.doc_id for hit in hits} == {"NFC", "NFD"}
        for hit in hits:
            [span] = hit.passages[0].highlights
            assert unicodedata.normalize("NFC", hit.passages[0].text[span.start : span.end]) == "münchen"


def test_many_first_writes_at_once(make_app: Callable[..., App]) -> None:
    app = make_app()
    failures: list[str] = []

    def first() -> None:
        try:
            ensure_collection(app, CollectionSpec("new"))
        except Exception as error:
            failures.append(repr(error))

    threads = [threading.Thread(target=first) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_an_unfinished_generation_cannot_be_published_and_is_swept_up(make_app: Callable[..., App]) -> None:
    app = filled(make_app)
    record = new_record(app, app.catalog.spec("c"))
    app.catalog.add_generation(record)  # as a build that was killed leaves it
    with pytest.raises(NotFoundError):
        app.catalog.publish("c", record.id)
    assert [g.id for g in app.catalog.generations("c")] == ["g000001"]
    rebuild(app)
    assert not (app.settings.data_dir / "collections" / "c" / "generations" / record.id).exists()


def test_a_rebuild_keeps_the_tuned_profile(make_app: Callable[..., App]) -> None:
    app = filled(make_app)
    app.catalog.save_profile("c", RankingProfile(name="tuned", weights={Signal.BM25: 1.0}))
    rebuild(app)
    assert app.search.search("c", SearchRequest("alpha", k=1)).profile.name == "tuned"


def test_overlaps_that_make_no_sense_are_refused(make_app: Callable[..., App]) -> None:
    app = make_app()
    with pytest.raises(InvalidInputError, match="half of chunk_chars"):
        ensure_collection(app, CollectionSpec("c", chunk_chars=100, chunk_overlap_chars=80))
    assert len(windows("word " * 4000, 100, 50)) < 1000


def test_a_table_cell_that_only_looks_like_a_number(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,text,n\na,x,--5\nb,x,²\nc,x,-7\nd,x,1e5\ne,x,12345678901234567890123\nf,x,\n")
    documents = [item.document for item in FileSource(tmp_path / "t.csv").items() if item.document]
    numbers = {one.id: one.metadata.get("n") for one in documents}
    assert numbers == {"a": "--5", "b": "²", "c": "-7", "d": "1e5", "e": "12345678901234567890123", "f": None}


def test_an_import_that_fails_leaves_nothing(make_app: Callable[..., App]) -> None:
    app = filled(make_app)

    def fails(_engine: object) -> None:
        raise ConflictError("half way")

    spec = CollectionSpec("copy")
    with pytest.raises(ConflictError, match="half way"):
        app.catalog.create(spec, new_record(app, spec), fails)
    assert app.catalog.names() == ["c"]
    ensure_collection(app, spec)
    assert app.catalog.names() == ["c", "copy"]


@pytest.mark.parametrize("elsewhere", [False, True])
def test_an_idle_snapshot_does_not_let_the_log_grow(
    make_app: Callable[..., App], monkeypatch: pytest.MonkeyPatch, elsewhere: bool
) -> None:
    """SQLite cannot shorten its log below the oldest open read: a snapshot that is out of date must go."""
    monkeypatch.setattr("hyblink.app.engines.embedded.engine._RELEASE_S", 0.05)
    app = make_app()
    ensure_collection(app, CollectionSpec("c", dense_encoder="none"))
    app.documents.bulk("c", [{"id": "a", "text": "alpha"}])
    assert app.search.search("c", SearchRequest("alpha")).hits
    writer = make_app() if elsewhere else app
    for round_ in range(40):
        rows = [{"id": f"r{round_}n{n}", "text": f"alpha{round_} " + "filler beta gamma " * 200} for n in range(50)]
        assert not writer.documents.bulk("c", rows).errors
        time.sleep(0.1 if elsewhere else 0)
    log = app.catalog.engine("c").store.path.with_name("store.sqlite-wal")
    assert log.stat().st_size < 8 * 2**20


def test_a_long_run_is_indexed_by_a_process_of_its_own(
    make_app: Callable[..., App], caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    app = make_app()
    ensure_collection(app, CollectionSpec("c"))
    engine = app.catalog.engine("c")
    follower = engine.follow()
    for part in range(8):
        app.documents.bulk("c", [{"id": f"{part}-{n}", "text": f"alpha {n}"} for n in range(50)], encode=False)
        follower.nudge()
    follower.close()
    assert "indexing process" not in caplog.text
    assert "Traceback" not in capfd.readouterr().err
    assert app.search.search("c", SearchRequest("alpha", k=5)).hits
