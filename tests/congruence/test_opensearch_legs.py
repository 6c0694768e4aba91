"""OpenSearch answers as the embedded engine does: the same passages, the same scores; stock or with our plugin, on one
shard or three.

Tolerances: BM25 1e-4 (Lucene adds float32 scores in another order than tantivy), sparse 1e-4 of the score. Compared with
nothing deleted, or after a merge that expunges: deleted passages stay in BM25's statistics until then.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from conftest import SOAK
from tests_support import WORDS, random_documents

from app.bootstrap import App
from app.core.errors import UnavailableError
from app.core.filters import parse_filter
from app.core.settings import OpenSearchSettings
from app.core.text import Analyzer
from app.core.types import CollectionSpec, Scored, TermWeights
from app.core.weights import round_weights
from app.indexes.opensearch import query_builder as build
from app.indexes.opensearch.client import Cluster as Connection
from app.indexes.opensearch.passages import PassageIndex, PassageRecord, document_actions
from app.indexes.opensearch.templates import install_templates
from app.node.cluster import Cluster

pytestmark = pytest.mark.services

REQUESTS = 2_000 if SOAK else 200
ANALYZER = Analyzer("english")
FILTERS: list[Any] = [
    None,
    {"term": {"colour": WORDS[0]}},
    {"terms": {"tags": WORDS[:3]}},
    {"range": {"size": {"gte": 20, "lt": 70}}},
    {"range": {"day": {"gt": "2024-02-05", "lte": "2024-02-20"}}},
    {"and": [{"exists": "flag"}, {"not": {"term": {"flag": True}}}]},
    {"or": [{"term": {"size": 7}}, {"not": {"exists": "colour"}}]},
]
OTHER_LANGUAGES = [
    {
        "id": "zh1",
        "title": "机器学习",
        "text": "机器学习是人工智能的一个分支。它研究算法和统计模型。",
        "metadata": {"size": 1},
    },
    {"id": "zh2", "title": "", "text": "深度学习使用神经网络,是机器学习的一种。", "metadata": {}},
    {"id": "ko1", "title": "K팝", "text": "2020년 한국어 노래와 음악 학습", "metadata": {"size": 2}},
    {
        "id": "py1",
        "title": "json.dump",
        "text": "json.dump(obj, fp) writes to_dict results; naïve café ★",
        "metadata": {},
    },
]


def copy_to(index: PassageIndex, app: App) -> None:
    reader = app.catalog.engine("c").snapshot().reader
    for one in reader.export():
        rows = reader.document_rows(one.document.id).tolist()
        records = [
            PassageRecord(row, ordinal, start, end, bag)
            for ordinal, (row, (start, end), bag) in enumerate(zip(rows, one.windows, one.bags, strict=True))
        ]
        assert index.write(document_actions(index.name, one.document, records, reader.change)) == []


@pytest.fixture(
    scope="module", params=[(1, False), (3, False), (3, True)], ids=["1 shard", "3 shards", "3 shards, stock"]
)
def pair(
    request: pytest.FixtureRequest, local_cluster: Callable[..., Cluster], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[App, PassageIndex]]:
    from conftest import use_fake_encoder

    from app.bootstrap import build
    from app.core.settings import Settings

    state = local_cluster().state()
    assert state is not None
    connection = Connection(OpenSearchSettings(hosts=(state.url,)))
    install_templates(connection)
    install_templates(connection)  # a second time changes nothing
    shards, stock = request.param
    index = PassageIndex(connection, f"hyblink-passages-test{shards}", stock=stock)
    index.delete()
    index.create(shards=shards)
    app = build(Settings(data_dir=tmp_path_factory.mktemp("embedded")))
    use_fake_encoder(app)
    app.ensure_collection(CollectionSpec("c", dense_encoder="none", chunk_chars=120, chunk_overlap_chars=20))
    assert not app.documents.bulk("c", random_documents(150, seed=11) + OTHER_LANGUAGES, encode=False).errors
    app.catalog.engine("c").compact()  # type: ignore[attr-defined]
    copy_to(index, app)
    yield app, index
    index.delete()
    app.close()
    connection.close()


def same(ours: Scored, theirs: Scored, k: int) -> None:
    """The same scores in the same places; rows may only change places within a tie."""
    assert len(ours) == len(theirs)
    assert np.allclose(ours.scores, theirs.scores, rtol=1e-4, atol=1e-4)
    if len(ours) == k:  # the last score may be shared with passages that did not fit in
        inside = ours.scores > ours.scores[-1] + 2e-4 * max(1.0, float(abs(ours.scores[-1])))
        assert set(ours.rows[inside].tolist()) <= set(theirs.rows.tolist())
    else:
        assert sorted(ours.rows.tolist()) == sorted(theirs.rows.tolist())


def requests() -> Iterator[tuple[str, int, Any]]:
    rng = random.Random(5)
    tricky = ["机器学习", "json.dump to_dict", "한국어 음악 2020년", "the of and", "★ naïve", "K팝", "alpha alpha beta"]
    for number in range(REQUESTS):
        query = (
            tricky[number // 3 % len(tricky)]
            if number % 3 == 0
            else " ".join(rng.choices(WORDS, k=rng.randrange(1, 6)))
        )
        yield query, rng.choice([1, 3, 10, 500]), rng.choice(FILTERS)


def test_legs_weights_and_completion_agree(pair: tuple[App, PassageIndex]) -> None:
    app, index = pair
    snapshot = app.catalog.engine("c").snapshot()
    bag = app.encoders.default_bag
    live = snapshot.reader.live_rows()
    assert index.count() == len(live)
    rng = np.random.default_rng(1)
    found = 0
    for query, k, tree in requests():
        terms, tokens = ANALYZER.terms(query), bag.encode_query(query)
        weights = snapshot.vdr.query_weights(tokens, 32)
        theirs = index.query_weights(tokens, 32)
        assert theirs.ids.tolist() == weights.ids.tolist()
        assert theirs.weights.tolist() == weights.weights.tolist()
        parsed = None if tree is None else parse_filter(tree)
        allowed = None if parsed is None else snapshot.reader.select(parsed)
        if parsed is not None:
            assert allowed is not None
            assert index.count(parsed) == len(allowed.rows())
        legs = index.search(terms, weights, k, parsed)
        same(snapshot.bm25.search(terms, k, allowed), legs.bm25, k)
        same(snapshot.vdr.search(weights, k, allowed), legs.vdr, k)
        rows = rng.permutation(live)[:40]
        bm25, vdr = index.complete(terms, weights, rows)
        assert np.allclose(bm25, snapshot.bm25.score(terms, rows), rtol=1e-4, atol=1e-4)
        assert np.allclose(vdr, snapshot.vdr.score(weights, rows), rtol=1e-4, atol=1e-4)
        found += len(legs.bm25) + len(legs.vdr)
    assert found > 5 * REQUESTS


def test_the_plugin_scores_as_stock_clauses_do(pair: tuple[App, PassageIndex]) -> None:
    app, index = pair
    assert index.cluster.has_plugin
    stock = PassageIndex(index.cluster, index.name, stock=True)
    snapshot = app.catalog.engine("c").snapshot()
    plugin = PassageIndex(index.cluster, index.name)
    rng = np.random.default_rng(4)
    vocabulary = np.unique(np.concatenate([batch.ids for batch in snapshot.reader.terms_since(-1)]))
    for number in range(REQUESTS // 4):
        ids = np.sort(rng.choice(vocabulary, size=int(rng.integers(1, min(len(vocabulary), 1000))), replace=False))
        weights = TermWeights(ids.astype(np.int32), round_weights(rng.gamma(1, 5, len(ids)) + 0.01))
        k = [1, 10, 200][number % 3]
        ours, theirs = plugin.search((), weights, k).vdr, stock.search((), weights, k).vdr
        assert np.allclose(ours.scores, theirs.scores, rtol=1e-6, atol=1e-6)
        same(ours, theirs, k)
        assert np.allclose(ours.scores, snapshot.vdr.search(weights, k, None).scores, rtol=1e-4)
        rows = ours.rows[:20]
        assert np.allclose(
            plugin.complete((), weights, rows)[1], stock.complete((), weights, rows)[1], rtol=1e-6, atol=1e-6
        )


def test_the_plugin_takes_more_tokens_than_a_stock_cluster_has_clauses(pair: tuple[App, PassageIndex]) -> None:
    app, index = pair
    snapshot = app.catalog.engine("c").snapshot()
    ids = np.arange(1000, 6000, dtype=np.int32)
    weights = TermWeights(ids, round_weights(np.random.default_rng(2).gamma(1, 5, len(ids)) + 0.01))
    expected = snapshot.vdr.search(weights, 50, None)
    same(PassageIndex(index.cluster, index.name).search((), weights, 50).vdr, expected, 50)
    # A stock cluster is asked for the heaviest tokens only: fewer points, but an answer.
    pruned = PassageIndex(index.cluster, index.name, stock=True).search((), weights, 50).vdr
    assert len(pruned) == 50
    assert (pruned.scores <= expected.scores + 1e-3).all()
    answer = index.cluster.client.search(
        index=index.name, body={"size": 1, "explain": True, "query": build.plugin_sparse_query(weights, "bag")}
    )
    (hit,) = answer["hits"]["hits"]
    assert hit["_explanation"]["value"] == pytest.approx(hit["_score"], rel=1e-4)
    with pytest.raises(UnavailableError, match="needs a rank_features field"):
        index.cluster.search_many(index.name, [{"query": build.plugin_sparse_query(weights, "content")}])


def test_bad_rows_are_named_and_the_others_kept(pair: tuple[App, PassageIndex]) -> None:
    _, index = pair
    before = index.count()
    action = {"_index": index.name, "routing": "x"}
    refused = index.write(
        [
            (
                {"index": {**action, "_id": "x#0"}},
                {"kind": "passage", "row": 10**9, "doc_id": "x", "content": "xylophone"},
            ),
            ({"index": {**action, "_id": "x#1"}}, {"kind": "passage", "row": "no number"}),
            ({"index": {**action, "_id": "x#2"}}, {"kind": "passage", "unknown": 1}),
            ({"index": {**action, "_id": "x#3"}}, {"kind": "passage", "row": 1, "bag": {"7": -1.0}}),
        ]
    )
    assert [(one.item_id, one.status) for one in refused] == [("x#1", 400), ("x#2", 400), ("x#3", 400)]
    assert "strict_dynamic_mapping_exception" in refused[1].reason
    assert index.count() == before + 1
    assert index.search(
        ["xylophon"], TermWeights(np.zeros(0, np.int32), np.zeros(0, np.float32)), 5
    ).bm25.rows.tolist() == [10**9]
    assert index.write([({"delete": {**action, "_id": "x#0"}}, None)]) == []
    index.expunge_deletes()
    assert index.count() == before


def test_an_index_that_is_not_there_is_named(pair: tuple[App, PassageIndex]) -> None:
    _, index = pair
    gone = PassageIndex(index.cluster, "hyblink-passages-gone")
    with pytest.raises(UnavailableError, match="hyblink-passages-gone"):
        gone.search(["a"], TermWeights(np.zeros(0, np.int32), np.zeros(0, np.float32)), 5)
    nobody = Connection(OpenSearchSettings(hosts=("http://127.0.0.1:1",), retries=1, timeout_s=2))
    with pytest.raises(UnavailableError, match="did not answer"):
        nobody.check_version()
    assert index.cluster.check_version() >= (3, 8, 0)
