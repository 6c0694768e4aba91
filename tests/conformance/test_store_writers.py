"""Writing to a store: progress, writers, processes, threads, export and compaction."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.documents import WORDS, random_documents

from hyblink.app.application import App
from hyblink.app.core.errors import ConflictError, WriterConflictError
from hyblink.app.core.ports.store import SourceProgress
from hyblink.app.core.settings import IngestSettings
from hyblink.app.core.types.collections import CollectionSpec
from hyblink.app.core.types.documents import DocId, Document
from hyblink.app.core.types.ranking import Signal
from hyblink.app.core.types.search import SearchRequest
from hyblink.app.operations.collections import ensure_collection, new_record
from hyblink.app.operations.encoding import encode_now
from hyblink.indexer.transfer import export_collection, import_collection, read_export
from tests.support.store import BLUE, RED, collection, put


def test_progress_moves_with_the_write_it_belongs_to(make_app: Callable[..., App]) -> None:
    app = make_app()
    store = collection(app).store
    assert store.progress("file:x") is None
    app.documents.upsert("c", [], encode=False, progress=SourceProgress("file:x", None, "10"))
    assert store.progress("file:x") == "10"
    assert store.change() == 0
    app.documents.upsert(
        "c", [Document(DocId("a"), "text")], encode=False, progress=SourceProgress("file:x", "10", "20")
    )
    assert make_app().catalog.engine("c").store.progress("file:x") == "20"
    assert store.progress("file:y") is None
    for stale in (SourceProgress("file:x", "10", "30"), SourceProgress("file:x", None, "30")):
        with pytest.raises(ConflictError, match="another run reads the same source"):
            app.documents.upsert("c", [Document(DocId("b"), "text")], encode=False, progress=stale)
    assert store.progress("file:x") == "20"
    assert store.reader().counts().documents == 1, "nothing of a run that was taken over is stored"


def test_one_writer_at_a_time(make_app: Callable[..., App]) -> None:
    app = make_app()
    store = collection(app).store
    other = make_app(ingest=IngestSettings(writer_wait_s=0.3))
    outside = other.catalog.engine("c").store
    with store.writer(), store.writer():
        put(app, RED)
        with pytest.raises(WriterConflictError, match="is writing to this collection"), outside.writer():
            pass
        with pytest.raises(WriterConflictError):
            other.documents.delete("c", ["b"])
        assert outside.reader().counts().documents == 1, "readers are not held up"
        refused: list[BaseException] = []

        def write_in_a_thread() -> None:
            try:
                with outside.writer():
                    pass
            except WriterConflictError as error:
                refused.append(error)

        thread = threading.Thread(target=write_in_a_thread)
        thread.start()
        thread.join()
        assert len(refused) == 1
    assert [item.status for item in other.documents.delete("c", ["b"]).items] == ["deleted"]


def test_what_one_process_writes_another_finds(make_app: Callable[..., App]) -> None:
    """Two applications with files of their own, as on two machines: words, weights and vectors."""
    writer, reader = make_app(), make_app()
    collection(writer)
    request = SearchRequest("sky blue", k=5)
    for number in range(4):
        put(writer, {**BLUE, "id": f"d{number}", "text": f"the sky is blue, number {number}"})
        assert len(reader.search.search("c", request).hits) == number + 1
        encode_now(writer, "c")
        ours, theirs = (app.search.search("c", request) for app in (writer, reader))
        assert [(h.doc_id, h.score) for h in ours.hits] == [(h.doc_id, h.score) for h in theirs.hits]
        assert (ours.change, ours.missing) == (theirs.change, theirs.missing)
    reader.documents.delete("c", ["d1"])
    assert {h.doc_id for h in writer.search.search("c", request).hits} == {"d0", "d2", "d3"}
    assert writer.catalog.engine("c").check() == reader.catalog.engine("c").check() == []


def test_threads_write_and_search_at_once(make_app: Callable[..., App]) -> None:
    """Each write puts three documents of one version: no search may see two versions, or two of three."""
    app = make_app()
    collection(app)
    stop = threading.Event()
    wrong: list[object] = []
    looked = 0

    def versions(number: int) -> list[dict[str, Any]]:
        return [{"id": f"{n}", "text": f"alpha {WORDS[n]}", "metadata": {"version": number}} for n in range(3)]

    put(app, *versions(0))

    def look() -> None:
        nonlocal looked
        while not stop.is_set():
            hits = app.search.search("c", SearchRequest("alpha", k=10)).hits
            found = sorted((hit.doc_id, hit.metadata["version"]) for hit in hits)
            looked += 1
            if len(found) != 3 or len({version for _, version in found}) != 1:
                wrong.append(found)

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    number = 0
    while number < 24 or (looked < 10 and number < 500):
        number += 1
        changed = [{**one, "text": f"{one['text']} {'more ' * (number % 3)}"} for one in versions(number)]
        put(app, *(changed if number % 2 else versions(number)))
        if number % 8 == 0:
            encode_now(app, "c")
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert looked > 5
    assert app.catalog.engine("c").check() == []


def test_collections_are_listed_made_once_and_deleted(make_app: Callable[..., App]) -> None:
    app = make_app()
    collection(app, "one")
    collection(app, "two-2_b")
    assert app.catalog.names() == make_app().catalog.names() == ["one", "two-2_b"]
    with pytest.raises(ConflictError, match="exists already"):
        app.catalog.create(CollectionSpec("one"), new_record(app, CollectionSpec("one")))
    put(app, RED, name="one")
    other = make_app()
    assert other.search.search("one", SearchRequest("roses")).hits
    app.catalog.delete("one")
    assert other.catalog.names() == ["two-2_b"]
    collection(app, "one")
    assert other.search.search("one", SearchRequest("roses")).hits == ()
    assert put(other, BLUE, name="one") == ["created"]


def test_an_export_of_one_engine_is_an_import_of_another(make_app: Callable[..., App], tmp_path: Path) -> None:
    """From here to the embedded engine and back, without an encoder."""
    from support.encoders import use_fake_encoder

    from hyblink.app.bootstrap import build
    from hyblink.app.core.settings import Settings

    app = make_app()
    engine = collection(app)
    put(app, *random_documents(60, seed=9), BLUE)
    encode_now(app, "c")
    put(app, RED)
    embedded = build(Settings(data_dir=tmp_path / "embedded"))
    use_fake_encoder(embedded)
    export_collection(engine, app.catalog.spec("c"), tmp_path / "there")
    manifest, spec = read_export(tmp_path / "there")
    ensure_collection(embedded, spec)
    assert import_collection(tmp_path / "there", manifest, embedded.catalog.engine("c")) == 62
    export_collection(embedded.catalog.engine("c"), spec, tmp_path / "back")
    there, back = (
        [json.loads(line) for line in (tmp_path / folder / "documents.jsonl").read_text().splitlines()]
        for folder in ("there", "back")
    )
    assert there == back
    for name in ("term_ids.i4", "term_weights.f4", "vectors.f2", "term_offsets.npy"):
        assert (tmp_path / "there" / name).read_bytes() == (tmp_path / "back" / name).read_bytes(), name
    again = make_app("again")
    ensure_collection(again, spec)
    import_collection(tmp_path / "back", read_export(tmp_path / "back")[0], again.catalog.engine("c"))
    assert [one.document for one in again.catalog.engine("c").store.reader().export()] == [
        one.document for one in engine.store.reader().export()
    ]
    assert again.catalog.engine("c").check() == []
    embedded.close()


@pytest.mark.parametrize("searched_between", [True, False])
def test_compacting_forgets_what_was_removed(make_app: Callable[..., App], searched_between: bool) -> None:
    """After it, however often, BM25's statistics are those of the documents that are there."""
    app, fresh = make_app("changed"), make_app("fresh")
    for one in (app, fresh):
        ensure_collection(one, CollectionSpec("c"))
    live: dict[str, dict[str, object]] = {}
    for round_ in range(4):
        rows = [{**row, "id": f"{round_}-{row['id']}"} for row in random_documents(30, seed=round_)]
        gone = list(live)[:10]
        assert not app.documents.bulk("c", rows, encode=False).errors
        app.documents.delete("c", gone)
        live = {name: row for name, row in live.items() if name not in gone} | {row["id"]: row for row in rows}
        # A cluster lets go of removed entries every 30 s: once is enough to wait for it.
        app.catalog.engine("c").compact(patience_s=90 if round_ == 3 else 0)
        if searched_between:
            app.search.search("c", SearchRequest("alpha", k=1))
    fresh.documents.bulk("c", list(live.values()), encode=False)

    def scores(one: App) -> dict[str, float]:
        request = SearchRequest("alpha beta gamma", k=100, signals=(Signal.BM25,), normalization="none")
        return {hit.doc_id: hit.score for hit in one.search.search("c", request).hits}

    assert scores(app) == pytest.approx(scores(fresh), rel=1e-5)
