"""The k-NN plugin behind the dense port, beside our own plugin, on the last version that is published with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from support.documents import WORDS, random_documents
from support.encoders import use_fake_encoder

from hyblink.app.application import App
from hyblink.app.bootstrap import build
from hyblink.app.core.errors import InvalidInputError, UnavailableError
from hyblink.app.core.filters import parse_filter
from hyblink.app.core.settings import OpenSearchSettings, Settings
from hyblink.app.core.types.collections import CollectionSpec
from hyblink.app.core.types.ranking import Signal
from hyblink.app.core.types.search import SearchRequest
from hyblink.app.engines.opensearch.local.cluster import Cluster
from hyblink.app.operations.collections import ensure_collection
from hyblink.app.operations.encoding import encode_now

pytestmark = pytest.mark.services

SPEC = {"chunk_chars": 120, "chunk_overlap_chars": 20}


@pytest.fixture(scope="module")
def pair(local_cluster: Callable[..., Cluster], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[App, App]]:
    """The embedded engine with exact search, and k-NN on a cluster of two shards, after the same history."""
    state = local_cluster("knn", version="3.6.0").state()
    assert state is not None
    options = OpenSearchSettings(hosts=state.urls, prefix="knn", shards=2, keep_removed_s=0)
    made = []
    for settings, kind in (
        (Settings(data_dir=tmp_path_factory.mktemp("embedded")), "flat"),
        (Settings(data_dir=tmp_path_factory.mktemp("cluster"), engine="opensearch", opensearch=options), "knn"),
    ):
        app = build(settings)
        use_fake_encoder(app)
        ensure_collection(app, CollectionSpec("c", dense_index=kind, **SPEC))  # type: ignore[arg-type]
        documents = random_documents(250, seed=21)
        assert not app.documents.bulk("c", documents, encode=False).errors
        encode_now(app, "c")
        changed = [{**one, "text": one["text"] + " afterwards"} for one in documents[:30]]
        moved = [{**one, "metadata": {"colour": WORDS[0]}} for one in documents[30:50]]
        assert not app.documents.bulk("c", changed + moved, encode=False).errors
        app.documents.delete("c", [one["id"] for one in documents[50:80]])
        encode_now(app, "c")
        app.catalog.engine("c").compact(patience_s=90)
        assert app.catalog.engine("c").check() == []
        made.append(app)
    yield made[0], made[1]
    made[1].catalog.delete("c")
    for app in made:
        app.close()


def by_ids(app: App, rows: Any) -> list[str]:
    found = app.catalog.engine("c").snapshot().reader.passages(rows)
    return [found[row].id for row in rows.tolist()]


@pytest.mark.parametrize("tree", [None, {"term": {"colour": WORDS[0]}}, {"not": {"exists": "size"}}], ids=str)
def test_neighbours_are_found_and_their_scores_exact(pair: tuple[App, App], tree: Any) -> None:
    ours, theirs = (app.catalog.engine("c").snapshot() for app in pair)
    assert ours.dense is not None
    assert theirs.dense is not None
    assert theirs.dense.vectors == ours.dense.vectors
    parsed = None if tree is None else parse_filter(tree)
    a, b = (None if parsed is None else view.reader.select(parsed) for view in (ours, theirs))
    shares = []
    for number in range(40):
        query = pair[0].encoders.default_dense.encode_query(" ".join(WORDS[number % 20 : number % 20 + 3]))
        exact, found = ours.dense.search(query, 20, a), theirs.dense.search(query, 20, b)
        assert len(found) == len(exact)
        shares.append(len(set(by_ids(pair[0], exact.rows)) & set(by_ids(pair[1], found.rows))) / len(exact))
        assert np.allclose(theirs.dense.score(query, found.rows), found.scores, atol=1e-5)
        assert (np.diff(found.scores) <= 0).all()
        if b is not None:
            assert b.contains(found.rows).all()
        row = int(found.rows[7])
        score = float(found.scores[7])
        rank = theirs.dense.rank(query, row)
        assert rank is not None
        everything = theirs.dense.score(query, theirs.reader.live_rows())
        assert (everything > score + 1e-5).sum() < rank <= (everything > score - 1e-5).sum()
    assert np.mean(shares) >= 0.98


def test_whole_searches_agree(pair: tuple[App, App]) -> None:
    for number in range(30):
        request = SearchRequest(
            " ".join(WORDS[number % 15 : number % 15 + 2]),
            k=10,
            candidates=900,
            filter={"exists": "size"} if number % 3 == 0 else None,
        )
        ours, theirs = (app.search.search("c", request) for app in pair)
        assert theirs.missing == ()
        assert ours.pool_size == theirs.pool_size
        assert [hit.score for hit in theirs.hits] == pytest.approx([hit.score for hit in ours.hits], abs=2e-3)
        raw = {hit.doc_id: {line.signal: line.raw for line in hit.passages[0].signals} for hit in ours.hits}
        for hit in theirs.hits:
            for line in hit.passages[0].signals if hit.doc_id in raw else ():
                assert line.raw == pytest.approx(raw[hit.doc_id][line.signal], rel=1e-4, abs=1e-4)


def test_a_passage_without_a_vector_and_one_that_gets_it(pair: tuple[App, App]) -> None:
    app = pair[1]
    app.documents.bulk("c", [{"id": "late", "text": "zebra crossing"}], encode=False)
    request = SearchRequest("zebra", k=1, signals=(Signal.BM25, Signal.DENSE))
    (hit,) = app.search.search("c", request).hits
    assert ["encoded for this search" in line.note for line in hit.passages[0].signals] == [False, True]
    at_once = hit.passages[0].signals[1].raw
    encode_now(app, "c")
    (hit,) = app.search.search("c", request).hits
    assert hit.passages[0].signals[1].raw == pytest.approx(at_once, rel=1e-3)
    assert [line.note for line in hit.passages[0].signals] == ["", ""]
    app.documents.delete("c", ["late"])
    assert all(hit.doc_id != "late" for hit in app.search.search("c", request).hits)


def test_where_there_is_no_such_plugin_it_is_said(
    local_cluster: Callable[..., Cluster], make_app: Callable[..., App]
) -> None:
    state = local_cluster().state()
    assert state is not None
    app = make_app(engine="opensearch", opensearch=OpenSearchSettings(hosts=state.urls, prefix="noknn"))
    with pytest.raises(UnavailableError, match="has no k-NN plugin"):
        ensure_collection(app, CollectionSpec("c", dense_index="knn"))
    assert app.catalog.names() == []
    with pytest.raises(InvalidInputError, match="no k-NN index of its own"):
        ensure_collection(make_app("embedded"), CollectionSpec("c", dense_index="knn"))
