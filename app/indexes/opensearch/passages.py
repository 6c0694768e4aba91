"""The passages of one generation in an OpenSearch index: written in bulk, searched by BM25 and by term weights.

Everything of a document is routed to one shard, and the index is refreshed by whoever writes, after the last item: a
document's passages become visible together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from app.core.errors import InvalidInputError, UnavailableError
from app.core.filters import Filter
from app.core.text import fold
from app.core.types import Document, IdArray, ScoreArray, Scored, TermWeights
from app.core.weights import idf_weights
from app.indexes.opensearch import query_builder as build
from app.indexes.opensearch.client import Cluster, ItemError, Json

BAG = "bag"


@dataclass(frozen=True, slots=True)
class PassageRecord:
    """A passage as it is written: row, its window of the document, and its bag of tokens."""

    row: int
    ordinal: int
    start: int
    end: int
    bag: TermWeights


def passage_id(doc_id: str, ordinal: int) -> str:
    """The `_id` of a passage."""
    return f"{doc_id}#{ordinal}"


def document_actions(
    index: str, document: Document, passages: Sequence[PassageRecord], change: int
) -> Iterator[tuple[Json, Json]]:
    """Bulk items of a document's passages. Text goes in as it was sent; what is analyzed is its NFC form."""
    shared = {
        "kind": "passage",
        "doc_id": document.id,
        "title": document.title,
        "lang": document.lang,
        "tier": "instant",
        "change": change,
        **build.metadata_fields(document.metadata),
    }
    for one in passages:
        text = document.text[one.start : one.end]
        action = {"_index": index, "_id": passage_id(document.id, one.ordinal), "routing": document.id}
        yield (
            {"index": action},
            {
                **shared,
                "row": one.row,
                "ordinal": one.ordinal,
                "start": one.start,
                "end": one.end,
                "text": text,
                "content": fold(f"{document.title}\n{text}" if document.title else text),
                BAG: weights_field(one.bag),
            },
        )


def weights_field(terms: TermWeights) -> dict[str, float]:
    """Term weights as a `rank_features` object, keyed by token id.

    Lucene keeps nine significant bits of a weight, the ones that `app.core.weights` leaves: nothing more is lost.
    """
    return {str(token): weight for token, weight in zip(terms.ids.tolist(), terms.weights.tolist(), strict=True)}


@dataclass(frozen=True, slots=True)
class Legs:
    """What BM25 and the sparse signal propose for one query."""

    bm25: Scored
    vdr: Scored


class PassageIndex:
    """One index and what is asked of it. Safe to share between threads."""

    def __init__(self, cluster: Cluster, name: str, *, stock: bool = False) -> None:
        """`stock` leaves our plugin alone even where it is installed."""
        if not name.startswith("hyblink-passages-"):
            raise InvalidInputError("bad index name", received=name, expected="hyblink-passages-… (the template's pattern)")
        self.cluster = cluster
        self.name = name
        self._stock = stock

    def create(self, *, shards: int = 1, replicas: int = 0) -> None:
        """Make the index from the installed templates. Raises ConflictError or UnavailableError."""
        body = {"settings": {"number_of_shards": shards, "number_of_replicas": replicas}}
        self.cluster.call(lambda: self.cluster.client.indices.create(index=self.name, body=body))

    def delete(self) -> None:
        """Delete the index if it is there."""
        self.cluster.delete_index(self.name)

    def write(self, actions: Iterable[tuple[Json, Json | None]]) -> list[ItemError]:
        """Send the items, then make all of them visible at once; what was refused."""
        refused = self.cluster.bulk(actions)
        self.refresh()
        return refused

    def refresh(self) -> None:
        """Make what was written visible to searches."""
        self.cluster.call(lambda: self.cluster.client.indices.refresh(index=self.name))

    def expunge_deletes(self) -> None:
        """Merge deleted passages away: until then they stay in BM25's statistics."""
        options = {"only_expunge_deletes": "false", "max_num_segments": 1, "request_timeout": 600}
        self.cluster.call(lambda: self.cluster.client.indices.forcemerge(index=self.name, params=options))
        self.refresh()

    def _sparse(self, weights: TermWeights, field: str, tree: Filter | None = None) -> Json:
        if not self._stock and self.cluster.has_plugin:
            return build.plugin_sparse_query(weights, field)
        return build.sparse_query(weights, field, build.budget(tree))

    def search(
        self, terms: Sequence[str], weights: TermWeights, k: int, tree: Filter | None = None, *, field: str = BAG
    ) -> Legs:
        """The k best passages by each signal, in one request."""
        filters = [] if tree is None else [build.filter_clause(tree)]
        asked: dict[str, Json] = {}
        if terms:
            asked["bm25"] = build.leg(build.bm25_query(terms, build.budget(tree)), k, filters)
        if len(weights):
            asked["vdr"] = build.leg(self._sparse(weights, field, tree), k, filters)
        answers = dict(zip(asked, self.cluster.search_many(self.name, list(asked.values())), strict=True))
        nothing = Scored(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32))
        return Legs(*(_scored(answers[name]) if name in answers else nothing for name in ("bm25", "vdr")))

    def complete(
        self, terms: Sequence[str], weights: TermWeights, rows: IdArray, *, field: str = BAG
    ) -> tuple[ScoreArray, ScoreArray]:
        """The exact BM25 and sparse scores of the given passages, in one request; 0 where nothing matches."""
        asked: dict[int, Json] = {}
        if terms and len(rows):
            asked[0] = build.completion(build.bm25_query(terms), rows)
        if len(weights) and len(rows):
            asked[1] = build.completion(self._sparse(weights, field), rows)
        scores = np.zeros((2, len(rows)), dtype=np.float32)
        order = np.argsort(rows)
        for signal, answer in zip(asked, self.cluster.search_many(self.name, list(asked.values())), strict=True):
            found = _scored(answer)
            scores[signal, order[np.searchsorted(rows, found.rows, sorter=order)]] = found.scores
        return scores[0], scores[1]

    def query_weights(self, tokens: Sequence[int], limit: int, *, field: str = BAG) -> TermWeights:
        """The query side of the bag of tokens: idf over the passages, the heaviest `limit`."""
        ids: npt.NDArray[np.int32] = np.asarray(tokens, dtype=np.int32)
        if not len(ids):
            return TermWeights(ids, np.zeros(0, dtype=np.float32))
        (answer,) = self.cluster.search_many(self.name, [build.token_frequencies(ids.tolist(), field)])
        counts = answer["aggregations"]["tokens"]["buckets"]
        frequency = np.array([counts[str(token)]["doc_count"] for token in ids.tolist()], dtype=np.int64)
        return idf_weights(ids, frequency, answer["hits"]["total"]["value"], limit)

    def count(self, tree: Filter | None = None) -> int:
        """How many passages pass the filter."""
        clauses: list[Json] = [{"term": {"kind": "passage"}}]
        if tree is not None:
            clauses.append(build.filter_clause(tree))
        body = {"query": {"bool": {"filter": clauses}}}
        found: Any = self.cluster.call(lambda: self.cluster.client.count(index=self.name, body=body))
        if found["_shards"]["failed"]:
            raise UnavailableError("OpenSearch counted on some shards only", received=found["_shards"])
        return int(found["count"])


def _scored(answer: Json) -> Scored:
    hits = answer["hits"]["hits"]
    rows = np.array([hit["fields"]["row"][0] for hit in hits], dtype=np.int64)
    return Scored(rows, np.array([hit["_score"] for hit in hits], dtype=np.float32))
