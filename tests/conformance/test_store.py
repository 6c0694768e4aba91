"""What every passage store promises: items, moments, changes, vectors, filters, writers, durability of progress."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from typing import Any

import numpy as np
from support.documents import WORDS, random_documents
from support.encoders import DIMENSION

from hyblink.app.application import App
from hyblink.app.core.filters import MAX_VALUES, matches, parse_filter
from hyblink.app.core.ports.store import StoreReader
from hyblink.app.core.types.documents import Tier
from hyblink.app.core.types.search import SearchRequest
from hyblink.app.operations.encoding import encode_now
from tests.support.store import BLUE, RED, collection, put, seen


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
        lengths = [passages[row].end - passages[row].start for row in rows.tolist()]
        assert reader.passage_lengths(np.append(rows, 10**15)).tolist() == [*lengths, 0]
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
        few = selection.rows_if_at_most(len(expected))
        assert few is not None
        assert few.tolist() == expected
