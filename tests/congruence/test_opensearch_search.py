"""OpenSearch answers as the embedded engine does after the same history: the same documents, the same scores.

Tolerances: BM25 1e-4 (Lucene adds float32 scores in another order than tantivy), sparse 1e-4 of the score, dense exact up
to the order of float32 sums (1e-5). Stock clauses against our plugin: 1e-6. Compared after both sides have merged away
what was replaced; `test_drift_before_merging` states what it is until then.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from support.documents import WORDS, random_documents
from support.services import SOAK

from hyblink.app.analysis.analyzer import Analyzer
from hyblink.app.application import App
from hyblink.app.core.errors import UnavailableError
from hyblink.app.core.filters import parse_filter
from hyblink.app.core.settings import OpenSearchSettings
from hyblink.app.core.types.arrays import TermWeights
from hyblink.app.core.types.collections import CollectionSpec
from hyblink.app.core.types.ranking import DEFAULT_SIGNALS, Scored, Signal
from hyblink.app.core.types.search import SearchRequest
from hyblink.app.core.weights import round_weights
from hyblink.app.engines.opensearch import query_builder as build
from hyblink.app.engines.opensearch.client import Cluster as Connection
from hyblink.app.engines.opensearch.local.cluster import Cluster
from hyblink.app.engines.opensearch.passages import NO_WEIGHTS, PassageSignals
from hyblink.app.operations.collections import ensure_collection, new_record
from hyblink.app.operations.encoding import encode_now
from hyblink.app.operations.generations import build_context, encoders_of, roll_back

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


def history(app: App, *, encode: bool = True) -> None:
    """Documents written, encoded, changed, deleted and written again."""
    ensure_collection(app, CollectionSpec("c", chunk_chars=120, chunk_overlap_chars=20))
    documents = random_documents(150, seed=11) + OTHER_LANGUAGES
    assert not app.documents.bulk("c", documents, encode=False).errors
    if encode:
        encode_now(app, "c")
    changed = [{**one, "text": one["text"] + " afterwards omega"} for one in documents[20:50]]
    moved = [{**one, "metadata": {"colour": WORDS[0], "size": 7}} for one in documents[50:70]]
    assert not app.documents.bulk("c", changed + moved, encode=False).errors
    app.documents.delete("c", [one["id"] for one in documents[70:90]])
    assert not app.documents.bulk("c", documents[80:85], encode=False).errors
    if encode:
        encode_now(app, "c")


@pytest.fixture(
    scope="module",
    params=[("one", 1, True), ("one", 3, False), ("three", 3, True)],
    ids=["plugin, 1 shard", "stock, 3 shards", "plugin, 3 nodes with 3 shards and replicas"],
)
def pair(
    request: pytest.FixtureRequest, local_cluster: Callable[..., Cluster], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[App, App]]:
    """The embedded engine and OpenSearch after the same history."""
    from support.encoders import use_fake_encoder

    from hyblink.app.bootstrap import build
    from hyblink.app.core.settings import Settings

    kind, shards, plugin = request.param
    state = (local_cluster() if kind == "one" else local_cluster("three", nodes=3)).state()
    assert state is not None
    options = OpenSearchSettings(
        hosts=state.urls,
        prefix=f"pair-{kind}-{shards}",
        shards=shards,
        replicas=1 if kind == "three" else 0,
        plugin=plugin,
        keep_removed_s=0,
    )
    made = []
    for settings in (
        Settings(data_dir=tmp_path_factory.mktemp("embedded")),
        Settings(data_dir=tmp_path_factory.mktemp("cluster"), engine="opensearch", opensearch=options),
    ):
        app = build(settings)
        use_fake_encoder(app)
        history(app)
        app.catalog.engine("c").compact(patience_s=90)
        assert app.catalog.engine("c").check() == []
        made.append(app)
    yield made[0], made[1]
    made[1].catalog.delete("c")
    for app in made:
        app.close()


def signals(app: App) -> PassageSignals:
    view: Any = app.catalog.engine("c").snapshot().bag
    return view.signals  # type: ignore[no-any-return]


def same(ours: list[tuple[str, float]], theirs: list[tuple[str, float]], k: int, tolerance: float) -> None:
    """The same scores in the same places; passages may only change places within a tie."""
    assert [score for _, score in theirs] == pytest.approx([score for _, score in ours], rel=tolerance, abs=tolerance)
    mine, other = {one for one, _ in ours}, {one for one, _ in theirs}
    if len(ours) == k:  # the last score may be shared with passages that did not fit in
        edge = ours[-1][1] + 2 * tolerance * max(1.0, abs(ours[-1][1]))
        assert {one for one, score in ours if score > edge} <= other
    else:
        assert mine == other


def requests() -> Iterator[tuple[str, int, Any]]:
    rng = random.Random(5)
    tricky = ["机器学习", "json.dump to_dict", "한국어 음악 2020년", "the of and", "★ naïve", "K팝", "alpha alpha beta"]
    for number in range(REQUESTS):
        query = (
            tricky[number // 3 % len(tricky)]
            if number % 3 == 0
            else " ".join(rng.choices(WORDS, k=rng.randrange(1, 6)))
        )
        yield query, rng.choice([1, 3, 10, 600]), rng.choice(FILTERS)


def by_ids(app: App, scored: Scored) -> list[tuple[str, float]]:
    """What a leg proposes, by passage ids: rows are each engine's own."""
    found = app.catalog.engine("c").snapshot().reader.passages(scored.rows)
    return [(found[row].id, score) for row, score in zip(scored.rows.tolist(), scored.scores.tolist(), strict=True)]


def test_legs_weights_filters_and_completion_agree(pair: tuple[App, App]) -> None:
    """Every leg's proposals, by the engines' own views, cut at any depth."""
    ours, theirs = (app.catalog.engine("c").snapshot() for app in pair)
    bag, dense = pair[0].encoders.default_bag, pair[0].encoders.default_dense
    ids = {
        app: {passage.id: row for row, passage in view.reader.passages(view.reader.live_rows()).items()}
        for app, view in (("ours", ours), ("theirs", theirs))
    }
    assert ids["ours"].keys() == ids["theirs"].keys()
    assert ours.dense is not None
    assert theirs.dense is not None
    rng = random.Random(1)
    found = 0
    for query, k, tree in requests():
        terms, tokens = ANALYZER.terms(query), bag.encode_query(query)
        weights, other = ours.bag.query_weights(tokens, 32), theirs.bag.query_weights(tokens, 32)
        assert other.ids.tolist() == weights.ids.tolist()
        assert other.weights.tolist() == weights.weights.tolist()
        vector = dense.encode_query(query)
        parsed = None if tree is None else parse_filter(tree)
        a = None if parsed is None else ours.reader.select(parsed)
        b = None if parsed is None else theirs.reader.select(parsed)
        if a is not None and b is not None:
            assert len(a.rows()) == len(b.rows())
        for mine, other_leg, tolerance in (
            (ours.bm25.search(terms, k, a), theirs.bm25.search(terms, k, b), 1e-4),
            (ours.bag.search(weights, k, a), theirs.bag.search(weights, k, b), 1e-4),
            (ours.dense.search(vector, k, a), theirs.dense.search(vector, k, b), 1e-5),
        ):
            same(by_ids(pair[0], mine), by_ids(pair[1], other_leg), k, tolerance)
            found += len(mine)
        some = rng.sample(sorted(ids["ours"]), 40)
        mine_rows = np.array([ids["ours"][one] for one in some])
        their_rows = np.array([ids["theirs"][one] for one in some])
        assert np.allclose(
            ours.bm25.score(terms, mine_rows), theirs.bm25.score(terms, their_rows), rtol=1e-4, atol=1e-4
        )
        assert np.allclose(
            ours.bag.score(weights, mine_rows), theirs.bag.score(weights, their_rows), rtol=1e-4, atol=1e-4
        )
    assert found > 5 * REQUESTS


def test_searches_agree(pair: tuple[App, App]) -> None:
    """Whole searches with all candidates: documents, ranks, fused scores, every signal, facets, explanations."""
    rng = random.Random(8)
    shown = 0
    for number, (query, _, tree) in enumerate(requests()):
        weights = {signal: rng.choice([0.0, 0.3, 1.0]) for signal in DEFAULT_SIGNALS}
        request = SearchRequest(
            query,
            k=rng.choice([1, 5, 20]),
            offset=rng.choice([0, 0, 7]),
            candidates=600,
            filter=tree,
            facets=("colour", "tags") if number % 5 == 0 else (),
            explain=number % 10 == 0,
            weights=weights if any(weights.values()) else None,
            fusion=rng.choice([None, "comb_sum"]),
            normalization=rng.choice([None, "min_max"]),
        )
        ours, theirs = (app.search.search("c", request) for app in pair)
        assert (ours.pool_size, ours.pool_documents) == (theirs.pool_size, theirs.pool_documents)
        assert ours.facets == theirs.facets
        assert ours.missing == theirs.missing
        scores = [hit.score for hit in ours.hits]
        assert [hit.score for hit in theirs.hits] == pytest.approx(scores, rel=1e-3, abs=1e-3)
        mine = {hit.doc_id: hit for hit in ours.hits}
        other = {hit.doc_id: hit for hit in theirs.hits}
        for doc_id in mine.keys() ^ other.keys():  # only a tie may put another document at the page's edge
            score = (mine.get(doc_id) or other[doc_id]).score
            assert min(abs(score - scores[0]), abs(score - scores[-1])) < 2e-3
        for doc_id in mine.keys() & other.keys():
            shown += 1
            compare(mine[doc_id], other[doc_id])
    assert shown > 2 * REQUESTS


def compare(mine: Any, other: Any) -> None:
    """Two hits of one document."""
    assert (mine.title, mine.metadata) == (other.title, other.metadata)
    texts = {passage.passage_id: passage for passage in mine.passages}
    for passage in other.passages:
        twin = texts.get(passage.passage_id)
        if twin is None:
            continue  # passages of a document that tie may stand in another order
        assert (passage.text, passage.tier, passage.highlights) == (twin.text, twin.tier, twin.highlights)
        for line, same_line in zip(twin.signals, passage.signals, strict=True):
            assert line.signal == same_line.signal
            if line.raw is None:
                assert same_line.raw is None
                continue
            assert same_line.raw == pytest.approx(line.raw, rel=1e-4, abs=1e-4)
            tokens = {token.token: token.contribution for token in line.tokens}
            assert {token.token: token.contribution for token in same_line.tokens} == pytest.approx(tokens, abs=1e-4)


def test_why_not_agrees(pair: tuple[App, App]) -> None:
    for doc_id in ("doc3", "doc60", "zh1", "doc82"):
        for tree in (None, FILTERS[1]):
            request = SearchRequest("alpha gamma 学习", k=3, candidates=12, filter=tree)
            ours, theirs = (app.search.why_not("c", request, doc_id) for app in pair)
            assert (ours.passes_filter, ours.lost_at == "filter") == (theirs.passes_filter, theirs.lost_at == "filter")
            for mine, other in zip(ours.legs, theirs.legs, strict=True):
                assert other.score == pytest.approx(mine.score, rel=1e-4, abs=1e-4)
                if mine.rank is None or other.rank is None:
                    assert mine.rank == other.rank
                else:  # equal scores stand in the order of rows, which are each engine's own
                    assert abs(mine.rank - other.rank) <= ties(pair[0], request.query, mine.signal, mine.score)


def ties(app: App, query: str, signal: Signal, score: float | None) -> int:
    """How many passages share a score."""
    request = SearchRequest(query, k=1, candidates=600, signals=(signal,))
    pool, _ = app.search.pool("c", request)
    return int((np.abs(pool.raw_SC[0] - (score or 0.0)) < 2e-4).sum())


def test_the_plugin_scores_as_stock_clauses_do(pair: tuple[App, App]) -> None:
    """Sparse products with up to 1,000 tokens: our query, `rank_feature` clauses and the embedded postings."""
    plugin = signals(pair[1])
    if not plugin.cluster.has_plugin:
        pytest.skip("this pair runs without the plugin")
    connection = Connection(plugin.cluster.settings.model_copy(update={"plugin": False}))
    stock = PassageSignals(connection, plugin.reader)
    embedded = pair[0].catalog.engine("c").snapshot()
    rng = np.random.default_rng(4)
    vocabulary = np.unique(np.concatenate([batch.ids for batch in embedded.reader.terms_since(-1)]))
    for number in range(REQUESTS // 4):
        ids = np.sort(rng.choice(vocabulary, size=int(rng.integers(1, min(len(vocabulary), 1000))), replace=False))
        weights = TermWeights(ids.astype(np.int32), round_weights(rng.gamma(1, 5, len(ids)) + 0.01))
        k = [1, 10, 200][number % 3]
        ours, theirs = plugin.search((), weights, k, None)[1], stock.search((), weights, k, None)[1]
        assert np.allclose(ours.scores, theirs.scores, rtol=1e-6, atol=1e-6)
        same(by_ids(pair[1], ours), by_ids(pair[1], theirs), k, 1e-6)
        assert np.allclose(ours.scores, embedded.bag.search(weights, k, None).scores, rtol=1e-4)
        rows = ours.rows[:20]
        assert np.allclose(plugin.score((), weights, rows)[1], stock.score((), weights, rows)[1], rtol=1e-6, atol=1e-6)
    connection.close()


def test_the_plugin_takes_more_tokens_than_a_stock_cluster_has_clauses(pair: tuple[App, App]) -> None:
    found = signals(pair[1])
    ids = np.arange(1000, 6000, dtype=np.int32)
    weights = TermWeights(ids, round_weights(np.random.default_rng(2).gamma(1, 5, len(ids)) + 0.01))
    expected = pair[0].catalog.engine("c").snapshot().bag.search(weights, 50, None)
    scored = found.search((), weights, 50, None)[1]
    if not found.cluster.has_plugin:
        # A stock cluster is asked for the heaviest tokens only: fewer points, but an answer.
        assert len(scored) == 50
        assert (scored.scores <= expected.scores + 1e-3).all()
        return
    same(by_ids(pair[1], scored), by_ids(pair[0], expected), 50, 1e-4)
    index = found.reader.names.passages
    body = {"size": 1, "explain": True, "query": build.plugin_sparse_query(weights, "bag")}
    (hit,) = found.cluster.search(index, body)["hits"]["hits"]
    assert hit["_explanation"]["value"] == pytest.approx(hit["_score"], rel=1e-4)
    with pytest.raises(UnavailableError, match="needs a rank_features field"):
        found.cluster.search(index, {"query": build.plugin_sparse_query(weights, "content")})


def test_drift_before_merging(local_cluster: Callable[..., Cluster], make_app: Callable[..., App]) -> None:
    """Replaced entries stay in the statistics until they are merged away: scores move, and by how much."""
    state = local_cluster().state()
    assert state is not None
    embedded = make_app("embedded")
    options = OpenSearchSettings(hosts=(state.url,), prefix="drift")
    clustered = make_app("cluster", engine="opensearch", opensearch=options)
    history(embedded)
    history(clustered)
    embedded.catalog.engine("c").compact()
    worst = 0.0
    for word in WORDS[:10]:
        request = SearchRequest(word, k=600, candidates=600, signals=(Signal.BM25,), highlight=False)
        ours, theirs = (
            {hit.doc_id: hit.score for hit in app.search.search("c", request).hits} for app in (embedded, clustered)
        )
        assert ours.keys() == theirs.keys(), "which passages match does not depend on statistics"
        worst = max(worst, *(abs(ours[doc] - theirs[doc]) / ours[doc] for doc in ours))
    print(f"largest relative drift of BM25 before merging: {worst:.3f}")
    assert worst < 0.35
    clustered.catalog.delete("c")


def test_an_alias_names_the_passages_that_answer(
    local_cluster: Callable[..., Cluster], make_app: Callable[..., App]
) -> None:
    """For other tools: it moves with every publication, whole."""
    from hyblink.indexer.generations.build import build as build_generation

    state = local_cluster().state()
    assert state is not None
    options = OpenSearchSettings(hosts=(state.url,), prefix="alias")
    app = make_app(engine="opensearch", opensearch=options)
    ensure_collection(app, CollectionSpec("c"))
    app.documents.bulk("c", random_documents(5, seed=1), encode=False)
    cluster = Connection(options)

    def answering() -> list[str]:
        return list(cluster.client.indices.get_alias(name="alias-current-c"))

    assert answering() == ["alias-passages-c-g000001"]
    record = new_record(app, app.catalog.spec("c"), parent="g000001")
    build_generation(build_context(app), record, **encoders_of(app, record), keep=2)
    assert answering() == ["alias-passages-c-g000002"]
    roll_back(app, "c")
    assert answering() == ["alias-passages-c-g000001"]
    mapping = cluster.client.indices.get_mapping(index="alias-current-c")["alias-passages-c-g000001"]["mappings"]
    assert mapping["_meta"]["dense_encoder"] == record.dense_encoder
    app.catalog.delete("c")
    assert not cluster.client.indices.exists(index="alias-passages-c-*", params={"allow_no_indices": "false"})
    cluster.close()


def test_what_is_not_there_is_named(pair: tuple[App, App]) -> None:
    found = signals(pair[1])
    with pytest.raises(UnavailableError, match="hyblink-passages-gone"):
        found.cluster.search("hyblink-passages-gone", {"query": {"match_all": {}}})
    nobody = Connection(OpenSearchSettings(hosts=("http://127.0.0.1:1",), retries=1, timeout_s=2))
    with pytest.raises(UnavailableError, match="did not answer"):
        nobody.check_version()
    assert found.cluster.check_version() >= (3, 8, 0)
    assert found.search(["nothing-like-this"], NO_WEIGHTS, 5, None)[0].rows.tolist() == []
