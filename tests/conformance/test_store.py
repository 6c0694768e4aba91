"""What every passage store promises: items, moments, changes, vectors, filters, writers, durability of progress."""

from __future__ import annotations

import json
import threading
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import DIMENSION
from tests_support import WORDS, random_documents

from hyblink.app.application import App
from hyblink.app.core.errors import ConflictError, WriterConflictError
from hyblink.app.core.filters import MAX_VALUES, matches, parse_filter
from hyblink.app.core.ports.engine import Engine
from hyblink.app.core.ports.store import SourceProgress, StoreReader
from hyblink.app.core.settings import IngestSettings
from hyblink.app.core.types.collections import CollectionSpec
from hyblink.app.core.types.documents import DocId, Document, Tier
from hyblink.app.core.types.ranking import Signal
from hyblink.app.core.types.search import SearchRequest
from hyblink.app.operations.collections import ensure_collection, new_record
from hyblink.app.operations.encoding import encode_now
from hyblink.indexer.transfer import export_collection, import_collection, read_export


def collection(app: App, name: str = "c") -> Engine:
    ensure_collection(app, CollectionSpec(name, chunk_chars=120, chunk_overlap_chars=20))
    return app.catalog.engine(name)


def put(app: App, *documents: dict[str, Any], name: str = "c") -> list[str]:
    return [item.status for item in app.documents.bulk(name, list(documents), encode=False).items]


def seen(reader: StoreReader) -> dict[str, Any]:
    """Everything a reader shows, in a form that can be compared."""
    rows = reader.live_rows()
    passages = reader.passages(rows)
    found, vectors = reader.vectors(rows)
    texts = {one.row: (one.doc_id, one.content) for batch in reader.texts_since(0) for one in batch}
    assert texts == {row: (one.doc_id, one.content) for row, one in passages.items()}
    return {
        "change": reader.change,
        "counts": reader.counts(),
        "passages": passages,
        "documents": {one.document.id: (one.document, one.windows, one.content_hash) for one in reader.export()},
        "vectors": dict(zip(found.tolist(), vectors.tolist(), strict=True)),
        "unencoded": reader.unencoded(10_000).tolist(),
        "texts": texts,
        "blue": reader.select(parse_filter({"term": {"colour": "blue"}})).rows().tolist(),
    }


BLUE = {"id": "a", "title": "Sky", "text": "the sky is blue " * 20, "metadata": {"colour": "blue", "size": 1}}
RED = {"id": "b", "text": "roses are red", "metadata": {"colour": "red"}}


def test_an_empty_store(make_app: Callable[..., App]) -> None:
    app = make_app()
    engine = collection(app)
    reader = engine.store.reader()
    assert reader.change == engine.store.change() == 0
    counts = reader.counts()
    assert (counts.documents, counts.passages, counts.encoded) == (0, 0, 0)
    assert reader.get_document("a") is None
    assert reader.live_rows().tolist() == reader.unencoded(10).tolist() == reader.document_rows("a").tolist() == []
    assert list(reader.export()) == list(reader.texts_since(0)) == list(reader.vectors_since(0)) == []
    assert app.search.search("c", SearchRequest("anything")).hits == ()
    assert engine.check() == []


def test_items_say_what_happened_and_only_real_changes_count(make_app: Callable[..., App]) -> None:
    app = make_app()
    store = collection(app).store
    first = app.documents.bulk("c", [BLUE, {"id": "", "text": "x"}, RED, RED], encode=False)
    assert [item.status for item in first.items] == ["created", "rejected", "created", "rejected"]
    assert [item.code for item in first.items] == ["", "invalid_input", "", "duplicate_id"]
    assert len(first.rows) == sum(item.passages for item in first.items) == store.reader().counts().passages
    assert first.change == store.change() == 1
    again = app.documents.bulk("c", [BLUE, RED], encode=False)
    assert [item.status for item in again.items] == ["unchanged", "unchanged"]
    assert (again.change, store.change(), again.rows) == (1, 1, ())
    assert put(app, {**BLUE, "text": "now short"}) == ["updated"]
    assert store.change() == 2
    gone = app.documents.delete("c", ["a", "nobody", "a"])
    assert [item.status for item in gone.items] == ["deleted", "not_found", "not_found"]
    assert store.change() == gone.change == 3
    assert app.documents.delete("c", ["a"]).change == store.change() == 3


def test_passages_are_windows_of_the_document_as_it_was_sent(make_app: Callable[..., App]) -> None:
    app = make_app()
    engine = collection(app)
    decomposed = unicodedata.normalize("NFD", "Café Ångström 한국어 ")
    tricky = {
        "id": "naïve/ç #1",
        "title": decomposed.strip(),
        "text": (decomposed + "\t\n 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 👩‍👩‍👧 \u0301alone ﬁne .\u200d") * 9,
        "lang": "fr",
        "metadata": {
            "a.b": "x.y",
            "ключ": ["значение", ""],
            "long": "v" * 5000,
            "f": 1.5,
            "t": True,
            "d": "2024-02-29",
        },
    }
    plain = {"id": "plain", "text": "no title here", "metadata": {}}
    assert put(app, tricky, plain) == ["created", "created"]
    reader = engine.store.reader()
    for sent in (tricky, plain):
        document = reader.get_document(str(sent["id"]))
        assert document is not None
        assert (document.id, document.title, document.text) == (sent["id"], sent.get("title", ""), sent["text"])
        assert (document.lang, dict(document.metadata)) == (sent.get("lang", ""), sent["metadata"])
        rows = reader.document_rows(document.id)
        assert (np.diff(rows) > 0).all()
        passages = reader.passages(rows)
        for ordinal, row in enumerate(rows.tolist()):
            passage = passages[row]
            assert (passage.row, passage.ordinal, passage.doc_id) == (row, ordinal, document.id)
            assert passage.text == document.text[passage.start : passage.end]
            assert passage.title == document.title
            assert passage.tier is Tier.INSTANT
        keys = reader.document_keys(rows)
        assert len(set(keys.tolist())) == 1
        assert reader.doc_ids(keys[:1]) == [document.id]
        assert dict(reader.metadata(keys[:1])[0]) == sent["metadata"]
    for tree in (
        {"term": {"a.b": "x.y"}},
        {"term": {"ключ": "значение"}},
        {"term": {"ключ": ""}},
        {"term": {"long": "v" * 5000}},
        {"range": {"d": {"gte": "2024-02-29", "lt": "2024-03-01"}}},
    ):
        assert reader.select(parse_filter(tree)).rows().tolist() == reader.document_rows(str(tricky["id"])).tolist()
    assert reader.passages(np.array([10**15])) == {}


def test_a_reader_stays_at_its_moment(make_app: Callable[..., App]) -> None:
    app = make_app()
    store = collection(app).store
    put(app, BLUE, RED)
    encode_now(app, "c")
    put(app, {"id": "w", "text": "waits for its vector", "metadata": {"colour": "blue"}})
    reader = store.reader()
    before = seen(reader)
    assert before["counts"].encoded == before["counts"].passages - 1
    acts: list[Callable[[], object]] = [
        lambda: encode_now(app, "c"),
        lambda: put(app, {**BLUE, "metadata": {"colour": "green"}}),
        lambda: put(app, {**RED, "text": "violets are blue"}, {"id": "n", "text": "new"}),
        lambda: app.documents.delete("c", ["a", "w"]),
    ]
    moments = [(reader, before)]
    for act in acts:
        act()
        moments.append((store.reader(), seen(store.reader())))
    for earlier, expected in moments:
        assert seen(earlier) == expected
    changes = [expected["change"] for _, expected in moments]
    assert changes == sorted(set(changes))


def test_metadata_alone_costs_no_encoding(make_app: Callable[..., App]) -> None:
    app = make_app()
    store = collection(app).store
    put(app, BLUE, RED)
    encode_now(app, "c")
    vectors = store.reader().vectors(store.reader().document_rows("a"))[1]
    result = app.documents.bulk("c", [{**BLUE, "metadata": {"colour": "black"}}], encode=False)
    assert result.items[0].status == "updated"
    assert result.rows == ()
    reader = store.reader()
    assert reader.counts().encoded == reader.counts().passages
    rows = reader.document_rows("a")
    assert reader.vectors(rows)[1].tolist() == vectors.tolist()
    assert reader.select(parse_filter({"term": {"colour": "black"}})).rows().tolist() == rows.tolist()
    assert reader.select(parse_filter({"term": {"colour": "blue"}})).rows().tolist() == []
    hits = app.search.search("c", SearchRequest("sky blue", k=1, filter={"term": {"colour": "black"}})).hits
    assert [(hit.doc_id, dict(hit.metadata)) for hit in hits] == [("a", {"colour": "black"})]
    # An update of a document that was only half encoded keeps what there is.
    put(app, {"id": "h", "text": "half " * 80})
    some = store.reader().unencoded(1)
    store.put_vectors(some, np.ones((1, DIMENSION), dtype=np.float32))
    put(app, {"id": "h", "text": "half " * 80, "metadata": {"x": 1}})
    after = store.reader()
    assert after.vectors(after.document_rows("h"))[1].tolist() == [[1.0] * DIMENSION]
    assert len(after.unencoded(100)) == len(after.document_rows("h")) - 1


def test_vectors_are_kept_as_float16_once(make_app: Callable[..., App]) -> None:
    app = make_app()
    store = collection(app).store
    put(app, BLUE, RED)
    rows = store.reader().live_rows()
    vectors = np.random.default_rng(0).standard_normal((len(rows), DIMENSION)).astype(np.float32)
    asked = np.concatenate([rows[:2], [10**15]])
    assert store.put_vectors(asked, np.concatenate([vectors[:2], vectors[:1]])) == 2
    at = store.change()
    assert store.put_vectors(rows[:2], -vectors[:2]) == 0
    assert store.change() == at, "what changes nothing is no change"
    reader = store.reader()
    found, kept = reader.vectors(rows[::-1])
    assert found.tolist() == rows[:2].tolist()
    assert kept.tolist() == vectors[:2].astype(np.float16).astype(np.float32).tolist()
    tiers = {row: passage.tier for row, passage in reader.passages(rows).items()}
    assert [tiers[row] for row in rows.tolist()] == [Tier.FULL] * 2 + [Tier.INSTANT] * (len(rows) - 2)
    assert reader.unencoded(100).tolist() == rows[2:].tolist()
    assert reader.unencoded(1, after=int(rows[2])).tolist() == rows[3:4].tolist()
    assert reader.live_rows(encoded=True).tolist() == rows[:2].tolist()
    assert reader.counts().encoded == 2


def test_indexes_can_follow_the_change_counter(make_app: Callable[..., App]) -> None:
    """What is derived by following ends where the store is, from every change at which somebody may have stopped."""
    app = make_app()
    store = collection(app).store
    documents = random_documents(30, seed=2)
    stops: list[tuple[int, dict[int, str], dict[int, list[float]], dict[int, list[int]]]] = []

    def state(reader: StoreReader) -> tuple[int, dict[int, str], dict[int, list[float]], dict[int, list[int]]]:
        return reader.change, *follow(reader, 0, {}, {}, {})

    def follow(
        reader: StoreReader,
        since: int,
        texts: dict[int, str],
        vectors: dict[int, list[float]],
        terms: dict[int, list[int]],
    ) -> tuple[dict[int, str], dict[int, list[float]], dict[int, list[int]]]:
        texts, vectors, terms = dict(texts), dict(vectors), dict(terms)
        for batch in reader.texts_since(since):
            assert [one.row for one in batch] == sorted(one.row for one in batch)
            texts |= {one.row: one.content for one in batch}
        for some in reader.terms_since(since):
            for n, row in enumerate(some.rows.tolist()):
                terms[row] = some.ids[some.offsets[n] : some.offsets[n + 1]].tolist()
        for rows, found in reader.vectors_since(since):
            vectors |= dict(zip(rows.tolist(), found.tolist(), strict=True))
        removed = reader.removed_since(since)
        assert removed is not None
        for row in removed.tolist():
            for kept in (texts, vectors, terms):
                kept.pop(row, None)
        return texts, vectors, terms

    stops.append(state(store.reader()))
    put(app, *documents)
    stops.append(state(store.reader()))
    encode_now(app, "c")
    stops.append(state(store.reader()))
    put(app, *[{**one, "text": one["text"] + " more"} for one in documents[:10]])
    app.documents.delete("c", [one["id"] for one in documents[5:15]])
    stops.append(state(store.reader()))
    put(app, *[{**one, "metadata": {"n": 1}} for one in documents[18:24]])
    encode_now(app, "c")
    reader = store.reader()
    expected = state(reader)[1:]
    assert sorted(expected[0]) == sorted(expected[1]) == sorted(expected[2]) == reader.live_rows().tolist()
    for change, texts, vectors, terms in stops:
        assert follow(reader, change, texts, vectors, terms) == expected


def test_filters_select_what_their_definition_says(make_app: Callable[..., App]) -> None:
    app = make_app()
    store = collection(app).store
    documents = random_documents(120, seed=4)
    documents += [
        {"id": "z0", "text": "zero", "metadata": {"size": 0}},
        {"id": "z1", "text": "minus zero", "metadata": {"size": -0.0}},
        {"id": "z2", "text": "tiny", "metadata": {"size": 5e-324}},
        {"id": "z3", "text": "huge", "metadata": {"size": -1.7e308}},
        {"id": "z4", "text": "a number as a string", "metadata": {"size": "7"}},
        {"id": "z5", "text": "empty list", "metadata": {"tags": [], "colour": ""}},
        {"id": "z6", "text": "whole", "metadata": {"size": 2**53 + 2}},
    ]
    put(app, *documents)
    reader = store.reader()
    by_row = {row: reader.passages(np.array([row]))[row].doc_id for row in reader.live_rows()[:5].tolist()}
    assert by_row
    owners = {row: passage.doc_id for row, passage in reader.passages(reader.live_rows()).items()}
    metadata = {one["id"]: one["metadata"] for one in documents}
    trees: list[dict[str, Any]] = [
        {"term": {"size": 0}},
        {"term": {"size": "7"}},
        {"term": {"size": 7}},
        {"term": {"flag": True}},
        {"term": {"flag": 1}},
        {"term": {"flag": "true"}},
        {"term": {"colour": ""}},
        {"terms": {"tags": WORDS[:3]}},
        {"terms": {"size": [1, 2.0, "x", *range(10, 40)]}},
        {"terms": {"size": list(range(MAX_VALUES))}},
        {"range": {"size": {"gte": 0}}},
        {"range": {"size": {"gt": 0}}},
        {"range": {"size": {"lte": -0.0}}},
        {"range": {"size": {"lt": 50, "gte": 3}}},
        {"range": {"size": {"gt": 5e-324}}},
        {"range": {"size": {"lt": -1e307}}},
        {"range": {"day": {"gte": "2024-02-10", "lt": "2024-02-20"}}},
        {"range": {"colour": {"gte": 1}}},
        {"exists": "tags"},
        {"not": {"exists": "size"}},
        {"and": [{"exists": "size"}, {"not": {"term": {"colour": "alpha"}}}]},
        {"or": [{"term": {"colour": "beta"}}, {"and": [{"term": {"flag": False}}, {"exists": "day"}]}]},
        {"not": {"not": {"or": [{"exists": "nothing"}, {"term": {"tags": "alpha"}}]}}},
    ]
    everything = reader.live_rows()
    for tree in trees:
        parsed = parse_filter(tree)
        expected = [row for row, doc in sorted(owners.items()) if matches(parsed, metadata[doc])]
        selection = reader.select(parsed)
        assert selection.rows().tolist() == expected, tree
        assert everything[selection.contains(everything)].tolist() == expected, tree
        few = selection.few(len(expected))
        assert few is not None
        assert few.tolist() == expected


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
    from conftest import use_fake_encoder

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
