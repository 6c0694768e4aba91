"""BM25 and the sparse signal on OpenSearch, in one snapshot: search, exact scores, contributions, ranks.

Both signals are searched in one request. If every node has the hyblink plugin, the sparse dot product is its `vdr`
query. Otherwise it is a disjunction of `rank_feature` clauses, with the same scores.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from hyblink.app.core.filters import Filter
from hyblink.app.core.ports.store import Selection
from hyblink.app.core.ports.views import JointAnswer
from hyblink.app.core.types.arrays import IdArray, ScoreArray, TermWeights
from hyblink.app.core.types.ranking import EMPTY, Scored, TokenContribution
from hyblink.app.core.weights import idf_weights
from hyblink.app.engines.opensearch import query_builder as build
from hyblink.app.engines.opensearch.client import Cluster, Json, check_shards
from hyblink.app.engines.opensearch.layout import BAG, read_weights
from hyblink.app.engines.opensearch.reader import ClusterReader, ClusterSelection


class PassageSignals:
    """BM25 and sparse queries over a generation's passages in one snapshot. Safe to share between threads."""

    def __init__(self, cluster: Cluster, reader: ClusterReader, *, field: str = BAG, settled: bool = True) -> None:
        """`field` is the index field with the term weights.

        `settled` means that no weights can be added to this snapshot's passages any more. Otherwise queries exclude
        weights that were written after the snapshot.
        """
        self.cluster = cluster
        self.reader = reader
        self.field = field
        self._settled = settled
        self._frequency: dict[int, int] = {}
        self._passages = 0
        self._counting = threading.Lock()

    def sparse_query(self, weights: TermWeights, tree: Filter | None = None) -> Json:
        """The OpenSearch query whose score is the dot product with `weights`.

        Without the plugin, the clauses of the filter `tree` reduce the number of weights that fit into the query.
        """
        if self.cluster.has_plugin:
            query = build.plugin_sparse_query(weights, self.field)
        else:
            query = build.sparse_query(weights, self.field, build.budget(tree))
        return query if self._settled else build.encoded_by(query, self.reader.change)

    def _ask(self, bodies: Sequence[Json]) -> list[Json]:
        return self.cluster.search_many(self.reader.names.passages, bodies)

    def search(
        self, terms: Sequence[str], weights: TermWeights, k: int, selection: Selection | None
    ) -> tuple[Scored, Scored]:
        """The k best passages by BM25 and by the sparse signal, in one request."""
        if self.completes and (terms or len(weights)):
            found = self.joint(terms, weights, k, selection, EMPTY.rows)
            return found.bm25, found.vdr
        tree, filters = filters_of(selection)
        change = self.reader.change
        asked: dict[int, Json] = {}
        if terms:
            asked[0] = build.leg(build.bm25_query(terms, build.budget(tree)), change, k, filters)
        if len(weights):
            asked[1] = build.leg(self.sparse_query(weights, tree), change, k, filters)
        answers = dict(zip(asked, map(_scored, self._ask(list(asked.values()))), strict=True))
        return answers.get(0, EMPTY), answers.get(1, EMPTY)

    def score(self, terms: Sequence[str], weights: TermWeights, rows: IdArray) -> tuple[ScoreArray, ScoreArray]:
        """(BM25 scores, sparse scores) of the given passages, exact, in one request; 0 if nothing matches."""
        scores = np.zeros((2, len(rows)), dtype=np.float32)
        order = np.argsort(rows)
        if self.completes and len(rows) and (terms or len(weights)):
            found_rows, found_scores, _ = self._completed(terms, weights, 0, None, rows)
            scores[:, order[np.searchsorted(rows, found_rows, sorter=order)]] = found_scores
            return scores[0], scores[1]
        asked: dict[int, Json] = {}
        if terms and len(rows):
            asked[0] = build.completion(build.bm25_query(terms), self.reader.change, rows)
        if len(weights) and len(rows):
            asked[1] = build.completion(self.sparse_query(weights), self.reader.change, rows)
        for signal, answer in zip(asked, self._ask(list(asked.values())), strict=True):
            found = _scored(answer)
            scores[signal, order[np.searchsorted(rows, found.rows, sorter=order)]] = found.scores
        return scores[0], scores[1]

    @property
    def completes(self) -> bool:
        """Whether one request can also return both scores of all retrieved rows (the plugin's `complete` endpoint)."""
        return self.cluster.has_plugin

    def joint(
        self, terms: Sequence[str], weights: TermWeights, k: int, selection: Selection | None, others: IdArray
    ) -> JointAnswer:
        """The k best passages of each signal and, with the plugin, both scores of these rows and of `others`."""
        if not self.completes or not (terms or len(weights)):
            found = self.search(terms, weights, k, selection)
            return JointAnswer(*found, EMPTY.rows, np.zeros((2, 0), dtype=np.float32))
        rows, scores, best = self._completed(terms, weights, k, selection, others)
        proposed = [Scored(rows[at], own[at]) for own, at in zip(scores, best, strict=True)]
        return JointAnswer(proposed[0], proposed[1], rows, scores)

    def _completed(
        self, terms: Sequence[str], weights: TermWeights, k: int, selection: Selection | None, others: IdArray
    ) -> tuple[IdArray, ScoreArray, list[IdArray]]:
        """(rows (C,), scores (2, C), per signal the indexes of its k best rows, best first), from the plugin."""
        tree, filters = filters_of(selection)
        signals: dict[str, Json] = {}
        if terms:
            signals["bm25"] = build.bm25_query(terms, build.budget(tree))
        if len(weights):
            signals["vdr"] = self.sparse_query(weights, tree)
        body = {
            "size": k,
            "filter": build.seen_at(self.reader.change, filters),
            "signals": signals,
            "candidates": others.tolist(),
            "limit_ms": int(self.cluster.settings.timeout_s * 1e3),
            "own_statistics": self.cluster.settings.search_type != "dfs_query_then_fetch",
        }
        answer = self.cluster.complete(self.reader.names.passages, body)
        rows = np.array(answer["rows"], dtype=np.int64)
        scores = np.zeros((2, len(rows)), dtype=np.float32)
        best = [EMPTY.rows, EMPTY.rows]
        for at, signal in enumerate(("bm25", "vdr")):
            if signal in signals:
                scores[at] = answer["scores"][signal]
                best[at] = np.array(answer["proposed"][signal], dtype=np.int64)
        return rows, scores, best

    def query_weights(self, tokens: Sequence[int], limit: int) -> TermWeights:
        """The idf of a query's tokens over the collection's passages; only the `limit` largest are kept."""
        ids: npt.NDArray[np.int32] = np.asarray(tokens, dtype=np.int32)
        with self._counting:
            unknown = [token for token in ids.tolist() if token not in self._frequency]
            if unknown:
                self._frequency |= self._count(unknown)
            frequency = np.array([self._frequency[token] for token in ids.tolist()], dtype=np.int64)
        return idf_weights(ids, frequency, self._passages, limit)

    def _count(self, tokens: Sequence[int]) -> dict[int, int]:
        """Token id → document frequency in passages. Also sets `_passages`, the total number of passages."""
        change = self.reader.change
        if self.cluster.has_plugin:
            body = {"count": {self.field: [str(token) for token in tokens]}, "filter": build.seen_at(change)}
            answer = self.cluster.complete(self.reader.names.passages, body)
            self._passages = int(answer["passages"])
            return dict(zip(tokens, answer["counts"], strict=True))
        (answer,) = self._ask([build.token_frequencies(tokens, self.field, change)])
        self._passages = int(answer["hits"]["total"]["value"])
        counts = answer["aggregations"]["tokens"]["buckets"]
        return {token: counts[str(token)]["doc_count"] for token in tokens}

    def bm25_contributions(self, terms: Sequence[str], rows: IdArray) -> list[list[TokenContribution]]:
        """Each row's BM25 score split by term."""
        found: dict[int, dict[str, float]] = {}
        if terms and len(rows):
            body = build.named_bm25(terms, self.reader.change, rows)
            options = {"include_named_queries_score": "true", "search_type": self.cluster.settings.search_type}
            index = self.reader.names.passages
            answer = self.cluster.call(lambda: self.cluster.client.search(index=index, body=body, params=options))
            check_shards(answer)
            found = {hit["fields"]["row"][0]: hit["matched_queries"] for hit in answer["hits"]["hits"]}
        counts = {term: terms.count(term) for term in terms}
        return [
            [
                TokenContribution(term, score, float(counts[term]), score / counts[term])
                for term, score in found.get(row, {}).items()
            ]
            for row in rows.tolist()
        ]

    def vdr_contributions(self, query: TermWeights, rows: IdArray) -> list[list[tuple[int, float, float]]]:
        """Each row's matching tokens as (token id, query weight, passage weight)."""
        wanted = dict(zip(query.ids.tolist(), query.weights.tolist(), strict=True))
        stored = {source["row"]: read_weights(source[self.field]) for source in self.reader.sources(rows, [self.field])}
        found = []
        for row in rows.tolist():
            terms = stored.get(row)
            pairs = () if terms is None else zip(terms.ids.tolist(), terms.weights.tolist(), strict=True)
            found.append([(token, wanted[token], weight) for token, weight in pairs if token in wanted])
        return found

    def rank(self, query: Json, row: int) -> int | None:
        """The exact rank of a passage among all that match the query, from 1; None if it does not match."""
        (answer,) = self._ask([build.completion(query, self.reader.change, np.array([row]))])
        hits = answer["hits"]["hits"]
        if not hits:
            return None
        answers = self._ask(build.ahead(query, self.reader.change, hits[0]["_score"], row))
        return 1 + sum(int(item["hits"]["total"]["value"]) for item in answers)


class Bm25OnCluster:
    """The `LexicalView` of OpenSearch."""

    def __init__(self, signals: PassageSignals) -> None:
        self.signals = signals

    def search(self, terms: Sequence[str], k: int, allowed: Selection | None) -> Scored:
        return self.signals.search(terms, NO_WEIGHTS, k, allowed)[0]

    def score(self, terms: Sequence[str], rows: IdArray) -> ScoreArray:
        return self.signals.score(terms, NO_WEIGHTS, rows)[0]

    def contributions(self, terms: Sequence[str], rows: IdArray) -> list[list[TokenContribution]]:
        return self.signals.bm25_contributions(terms, rows)

    def rank(self, terms: Sequence[str], row: int) -> int | None:
        return self.signals.rank(build.bm25_query(terms), row) if terms else None


class SparseOnCluster:
    """The `SparseView` of OpenSearch."""

    def __init__(self, signals: PassageSignals) -> None:
        self.signals = signals

    def query_weights(self, ids: Sequence[int], limit: int) -> TermWeights:
        return self.signals.query_weights(ids, limit)

    def search(self, query: TermWeights, k: int, allowed: Selection | None) -> Scored:
        return self.signals.search((), query, k, allowed)[1]

    def score(self, query: TermWeights, rows: IdArray) -> ScoreArray:
        return self.signals.score((), query, rows)[1]

    def contributions(self, query: TermWeights, rows: IdArray) -> list[list[tuple[int, float, float]]]:
        return self.signals.vdr_contributions(query, rows)

    def rank(self, query: TermWeights, row: int) -> int | None:
        return self.signals.rank(self.signals.sparse_query(query), row) if len(query) else None


class JointOnCluster:
    """The `JointView` of OpenSearch: BM25 and the sparse signal in one request."""

    def __init__(self, signals: PassageSignals) -> None:
        self.signals = signals

    @property
    def completes(self) -> bool:
        return self.signals.completes

    def search(
        self,
        terms: Sequence[str],
        query: TermWeights,
        k: int,
        allowed: Selection | None,
        others: IdArray,
    ) -> JointAnswer:
        return self.signals.joint(terms, query, k, allowed, others)

    def score(self, terms: Sequence[str], query: TermWeights, rows: IdArray) -> ScoreArray:
        return np.stack(self.signals.score(terms, query, rows))


NO_WEIGHTS = TermWeights(np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.float32))


def filters_of(selection: Selection | None) -> tuple[Filter | None, list[Json]]:
    """(filter tree, query clauses) of a selection. The tree is None if the selection is a list of rows, or None."""
    if selection is None:
        return None, []
    if isinstance(selection, ClusterSelection):
        return selection.tree, [build.filter_clause(selection.tree)]
    return None, [{"terms": {"row": selection.rows().tolist()}}]


def _scored(answer: Json) -> Scored:
    hits = answer["hits"]["hits"]
    rows = np.array([hit["fields"]["row"][0] for hit in hits], dtype=np.int64)
    return Scored(rows, np.array([hit["_score"] for hit in hits], dtype=np.float32))
