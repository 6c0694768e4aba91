"""Dense retrieval on the cluster by the k-NN plugin, for collections too large for one machine's memory.

The search is approximate (HNSW; Malkov & Yashunin 2018) and uses the same filter as the other signals. Scores are
exact inner products with the stored vectors.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from hyblink.app.core.errors import InvalidInputError, UnavailableError
from hyblink.app.core.ports.store import Selection
from hyblink.app.core.selection import RowSelection
from hyblink.app.core.types.arrays import IdArray, ScoreArray, VectorArray
from hyblink.app.core.types.ranking import Scored
from hyblink.app.engines.derived import top
from hyblink.app.engines.opensearch import query_builder as build
from hyblink.app.engines.opensearch.client import Cluster, Json
from hyblink.app.engines.opensearch.passages import filters_of
from hyblink.app.engines.opensearch.reader import ClusterReader

KNN = "knn"
"""The name of this type of dense index, and of the index field with the vectors."""


def knn_field(dimension: int, engine: str) -> Json:
    """The mapping of the vector field. `engine` is `lucene` or `faiss`."""
    method = {
        "name": "hnsw",
        "engine": engine,
        "space_type": "innerproduct",
        "parameters": {"m": 32, "ef_construction": 200},
    }
    return {"type": "knn_vector", "dimension": dimension, "method": method}


def inner_products(scores: ScoreArray) -> ScoreArray:
    """The inner products x of the k-NN plugin's scores, which are 1 + x for x ≥ 0 and 1 / (1 - x) otherwise.

    >>> inner_products(np.array([1.5, 1.0, 0.5], dtype=np.float32)).tolist()
    [0.5, 0.0, -1.0]
    """
    return np.where(scores >= 1.0, scores - 1.0, 1.0 - 1.0 / np.maximum(scores, 1e-30)).astype(np.float32)


def knn_score(product: float) -> float:
    """The k-NN plugin's score of an inner product; the inverse of `inner_products`."""
    return 1.0 + product if product >= 0.0 else 1.0 / (1.0 - product)


class KnnView:
    """The `DenseView` of OpenSearch's k-NN index, in one snapshot."""

    def __init__(self, cluster: Cluster, reader: ClusterReader, dimension: int) -> None:
        self._cluster = cluster
        self._reader = reader
        self._dimension = dimension

    @cached_property
    def vectors(self) -> int:
        return self._reader.counts().encoded

    def _check(self, query: VectorArray) -> VectorArray:
        if query.shape != (self._dimension,):
            raise InvalidInputError(
                "the query vector has the wrong dimension", received=query.shape, expected=f"({self._dimension},)"
            )
        return np.ascontiguousarray(query, dtype=np.float32)

    def _seen(self, selection: Selection | None = None) -> Json:
        encoded = {"range": {"vector_change": {"lte": self._reader.change}}}
        return build.seen_at(self._reader.change, [encoded, *filters_of(selection)[1]])

    def search(self, query: VectorArray, k: int, allowed: Selection | None) -> Scored:
        query_D = self._check(query)
        settings = self._cluster.settings
        asked = {
            "vector": query_D.tolist(),
            "k": k,
            "filter": self._seen(allowed),
            "method_parameters": {"ef_search": max(settings.knn_ef_search, k)},
        }
        body = {"query": {"knn": {KNN: asked}}, **build.rows_only(k)}
        hits = self._cluster.search(self._reader.names.passages, body)["hits"]["hits"]
        rows = np.array([hit["fields"]["row"][0] for hit in hits], dtype=np.int64)
        scores = np.array([hit["_score"] for hit in hits], dtype=np.float32)
        return top(rows, inner_products(scores), k)

    def score(self, query: VectorArray, rows: IdArray) -> ScoreArray:
        query_D = self._check(query)
        scores = np.full(len(rows), np.nan, dtype=np.float32)
        if not len(rows):
            return scores
        wanted = self._seen(RowSelection(np.unique(rows)))
        body = {"query": self._exactly(wanted, query_D), **build.rows_only(len(rows))}
        hits = self._cluster.search(self._reader.names.passages, body)["hits"]["hits"]
        order = np.argsort(rows)
        found = np.array([hit["fields"]["row"][0] for hit in hits], dtype=np.int64)
        values = inner_products(np.array([hit["_score"] for hit in hits], dtype=np.float32))
        scores[order[np.searchsorted(rows, found, sorter=order)]] = values
        return scores

    @staticmethod
    def _exactly(among: Json, query_D: VectorArray) -> Json:
        """The query that scores the passages matching `among` by exact inner products, with the plugin's script."""
        params = {"field": KNN, "query_value": query_D.tolist(), "space_type": "innerproduct"}
        return {"script_score": {"query": among, "script": {"source": "knn_score", "lang": "knn", "params": params}}}

    def rank(self, query: VectorArray, row: int) -> int | None:
        """The row's exact rank among all vectors, from 1, by the plugin's scoring script; None without a vector.

        Scores closer than the plugin's rounding differences count as ties.
        """
        query_D = self._check(query)
        score = float(self.score(query_D, np.array([row]))[0])
        if np.isnan(score):
            return None
        body = {
            "size": 0,
            "track_total_hits": True,
            # The plugin sums in another order, so scores differ by rounding: closer ones count as ties.
            "min_score": knn_score(score) + 1e-6,
            "query": self._exactly(self._seen(), query_D),
        }
        answer = self._cluster.search(self._reader.names.passages, body)
        return 1 + int(answer["hits"]["total"]["value"])


def check_knn(cluster: Cluster) -> None:
    """Raise UnavailableError if the cluster does not have the k-NN plugin."""
    found = cluster.call(lambda: cluster.client.cat.plugins(params={"format": "json", "h": "component"}))
    if not any(result["component"] == "opensearch-knn" for result in found):
        raise UnavailableError(
            "the cluster has no k-NN plugin", expected="the opensearch-knn plugin, or another dense index than `knn`"
        )
