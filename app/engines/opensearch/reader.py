"""A read-only snapshot of the store on OpenSearch, at one change counter."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hyblink.app.core.errors import CorruptionError, UnavailableError
from hyblink.app.core.filters import Filter
from hyblink.app.core.ports.store import ExportedDocument, PassageChange
from hyblink.app.core.types.arrays import BoolArray, IdArray, TermBatch, TermWeights, VectorArray
from hyblink.app.core.types.documents import Document, Metadata, Passage, StoreCounts
from hyblink.app.engines.opensearch import query_builder as build
from hyblink.app.engines.opensearch.client import Cluster, Json
from hyblink.app.engines.opensearch.layout import (
    BAG,
    ORDINAL_BITS,
    PASSAGE_FIELDS,
    VDR,
    Names,
    is_visible,
    read_document,
    read_passage,
    read_vector,
    read_weights,
    rows_of,
)

_ROWS_PAGE = 10_000
_TEXT_PAGE = 1_000
_ASKED = 10_000
_HEADS = 100_000
_SELECTIONS = 16
_READ_AT_ONCE = 2_000
"""Up to this many rows, reading a filter's rows is faster than testing a few hundred candidates against the filter."""


class DocumentVersions:
    """A cache of the ids and metadata of document versions. A version never changes, so entries stay valid."""

    def __init__(self, cluster: Cluster, index: str) -> None:
        self._cluster = cluster
        self._index = index
        self._known: OrderedDict[int, tuple[str, Metadata]] = OrderedDict()
        self._lock = threading.Lock()

    def learn(self, key: int, doc_id: str, metadata: Metadata) -> None:
        """Add an entry that was read as part of another request."""
        with self._lock:
            self._known[key] = (doc_id, metadata)
            while len(self._known) > _HEADS:
                self._known.popitem(last=False)

    def get(self, keys: IdArray) -> list[tuple[str, Metadata]]:
        """(document id, metadata) of each version key, in the same order. Raises UnavailableError if one is gone."""
        with self._lock:
            found = {key: self._known[key] for key in keys.tolist() if key in self._known}
        missing = [str(key) for key in keys.tolist() if key not in found]
        if missing:
            read = self._cluster.get_many(self._index, missing, ["key", "doc_id", "metadata"])
            if len(read) < len(set(missing)):
                raise UnavailableError("OpenSearch has some documents no more", received=missing)
            for item in read:
                source = item["_source"]
                found[source["key"]] = (source["doc_id"], source["metadata"])
                self.learn(source["key"], source["doc_id"], source["metadata"])
        return [found[key] for key in keys.tolist()]


@dataclass(frozen=True, slots=True)
class ClusterSelection:
    """The passages that pass a filter. The filter is sent with each query; rows are read only if they are needed."""

    reader: ClusterReader
    tree: Filter

    def rows(self) -> IdArray:
        return self.reader.selected(self.tree)

    def rows_if_at_most(self, limit: int) -> IdArray | None:
        return self.rows() if self.reader.count(self.tree) <= min(limit, _READ_AT_ONCE) else None

    def contains(self, rows: IdArray) -> BoolArray:
        inside: BoolArray = np.isin(rows, self.reader.rows([build.filter_clause(self.tree)], among=rows))
        return inside


class ClusterReader:
    """The `StoreReader` of OpenSearch: a generation's two indexes read at one change counter.

    It holds no resources on the cluster.
    """

    def __init__(
        self,
        cluster: Cluster,
        names: Names,
        change: int,
        floor: Callable[[], int],
        heads: DocumentVersions,
        moments: Mapping[int, str],
    ) -> None:
        """`floor` returns the change counter up to which removed passages have been purged.

        `moments` are those of the newest changes.
        """
        self._moments = moments
        self._cluster = cluster
        self._selected: OrderedDict[str, IdArray] = OrderedDict()
        self.names = names
        self._change = change
        self._floor = floor
        self._heads = heads

    @property
    def change(self) -> int:
        return self._change

    @property
    def moment(self) -> str:
        return self._moments.get(self._change, "")

    def continues(self, change: int, moment: str) -> bool:
        known = self._moments.get(change)
        return known is None or not moment or known == moment

    def _visible(self, filters: Sequence[Json] = (), must_not: Sequence[Json] = ()) -> Json:
        return build.seen_at(self._change, filters, must_not)

    def _encoded(self) -> Json:
        return {"range": {"vector_change": {"lte": self._change}}}

    def get_document(self, doc_id: str) -> Document | None:
        source = self._document(doc_id, ["doc_id", "title", "text", "lang", "metadata", "sections"])
        return None if source is None else read_document(source)

    def _document(self, doc_id: str, fields: list[str]) -> Json | None:
        body = {"size": 2, "query": self._visible([{"term": {"doc_id": doc_id}}]), "_source": fields}
        hits = self._cluster.search(self.names.documents, body)["hits"]["hits"]
        if len(hits) > 1:
            raise CorruptionError("a document has two versions at once", received=doc_id)
        return hits[0]["_source"] if hits else None

    def sources(self, rows: IdArray, fields: list[str]) -> list[Json]:
        """The stored fields of the given passages that are visible in this snapshot."""
        if not len(rows):
            return []
        wanted = ["row", "change", "removed", *fields]
        read = self._cluster.get_many(self.names.passages, [str(row) for row in rows.tolist()], wanted)
        return [item["_source"] for item in read if is_visible(item["_source"], self._change)]

    def passages(self, rows: IdArray) -> dict[int, Passage]:
        found: dict[int, Passage] = {}
        for source in self.sources(rows, PASSAGE_FIELDS):
            passage = read_passage(source, self._change)
            found[passage.row] = passage
            self._heads.learn(passage.row >> ORDINAL_BITS, passage.doc_id, source["metadata"])
        return found

    def passage_lengths(self, rows: IdArray) -> IdArray:
        found = {item["row"]: item["end"] - item["start"] for item in self.sources(rows, ["start", "end"])}
        return np.array([found.get(row, 0) for row in rows.tolist()], dtype=np.int64)

    def document_keys(self, rows: IdArray) -> IdArray:
        return rows >> ORDINAL_BITS

    def doc_ids(self, keys: IdArray) -> list[str]:
        return [doc_id for doc_id, _ in self._heads.get(keys)]

    def metadata(self, keys: IdArray) -> list[Metadata]:
        return [metadata for _, metadata in self._heads.get(keys)]

    def metadata_of(self, doc_ids: Sequence[str]) -> dict[str, Metadata]:
        found: dict[str, Metadata] = {}
        for at in range(0, len(doc_ids), _TEXT_PAGE):
            asked = {"terms": {"doc_id": list(doc_ids[at : at + _TEXT_PAGE])}}
            body = {"size": _TEXT_PAGE, "query": self._visible([asked]), "_source": ["doc_id", "metadata"]}
            for hit in self._cluster.search(self.names.documents, body)["hits"]["hits"]:
                found[hit["_source"]["doc_id"]] = hit["_source"]["metadata"]
        return found

    def document_rows(self, doc_id: str) -> IdArray:
        source = self._document(doc_id, ["key", "passages"])
        return np.zeros(0, dtype=np.int64) if source is None else rows_of(source["key"], source["passages"])

    def select(self, tree: Filter) -> ClusterSelection:
        return ClusterSelection(self, tree)

    def selected(self, tree: Filter) -> IdArray:
        """The rows of the passages that pass the filter, ascending. The last few filters' rows are cached."""
        key = repr(tree)  # a string, because True == 1 in Python but not in a filter
        found = self._selected.get(key)
        if found is None:
            found = self._selected[key] = self.rows([build.filter_clause(tree)])
            while len(self._selected) > _SELECTIONS:
                self._selected.popitem(last=False)
        return found

    def count(self, tree: Filter | None = None) -> int:
        """The number of passages that pass the filter; of all passages for None."""
        query = self._visible([] if tree is None else [build.filter_clause(tree)])
        return self._counts((self.names.passages, query))[0]

    def _counts(self, *asked: tuple[str, Json]) -> list[int]:
        counts = []
        for index, query in asked:
            answer = self._cluster.search(index, {"size": 0, "track_total_hits": True, "query": query})
            counts.append(int(answer["hits"]["total"]["value"]))
        return counts

    def rows(self, filters: Sequence[Json] = (), *, among: IdArray | None = None) -> IdArray:
        """The rows of the passages that pass the query clauses, ascending. `among` limits the result to these rows."""
        if among is None:
            body = {"query": self._visible(filters), "_source": False}
            pages = self._cluster.scan(self.names.passages, body, "row", _ROWS_PAGE)
            found = [np.array([hit["sort"][0] for hit in hits], dtype=np.int64) for hits in pages]
        else:
            found = []
            for at in range(0, len(among), _ASKED):
                some = {"terms": {"row": among[at : at + _ASKED].tolist()}}
                body = {**build.rows_only(_ASKED), "query": self._visible([*filters, some])}
                hits = self._cluster.search(self.names.passages, body)["hits"]["hits"]
                found.append(np.array([hit["fields"]["row"][0] for hit in hits], dtype=np.int64))
        return np.sort(np.concatenate(found)) if found else np.zeros(0, dtype=np.int64)

    def vectors(self, rows: IdArray) -> tuple[IdArray, VectorArray]:
        sources = self.sources(rows, ["row", "vector", "vector_change"])
        found = {
            source["row"]: read_vector(source["vector"])
            for source in sources
            if source.get("vector") is not None and source["vector_change"] <= self._change
        }
        ascending = sorted(found)
        vectors = np.stack([found[row] for row in ascending]) if found else np.zeros((0, 0), dtype=np.float32)
        return np.array(ascending, dtype=np.int64), vectors

    def unencoded(self, limit: int, after: int = 0) -> IdArray:
        body = {
            "size": min(limit, _ROWS_PAGE),
            "query": self._visible([{"range": {"row": {"gt": after}}}], [self._encoded()]),
            "_source": False,
            "sort": [{"row": "asc"}],
        }
        hits = self._cluster.search(self.names.passages, body)["hits"]["hits"]
        return np.array([hit["sort"][0] for hit in hits], dtype=np.int64)

    def _scan(self, filters: Sequence[Json], fields: list[str], size: int = _TEXT_PAGE) -> Iterator[list[Json]]:
        body = {"query": self._visible(filters), "_source": fields}
        for hits in self._cluster.scan(self.names.passages, body, "row", size):
            yield [hit["_source"] for hit in hits]

    def texts_since(self, change: int) -> Iterator[list[PassageChange]]:
        for sources in self._scan([{"range": {"change": {"gt": change}}}], [*PASSAGE_FIELDS, "change"]):
            passages = [(read_passage(source, self._change), source["change"]) for source in sources]
            yield [PassageChange(passage.row, at, passage.doc_id, passage.content) for passage, at in passages]

    def encoded(self, rows: IdArray) -> BoolArray:
        inside: BoolArray = np.isin(rows, self.rows([self._encoded()], among=rows))
        return inside

    def terms_since(self, change: int) -> Iterator[TermBatch]:
        return self._weights_of(BAG, {"range": {"change": {"gt": change}}})

    def weights_since(self, change: int) -> Iterator[TermBatch]:
        return self._weights_of(VDR, {"range": {"vector_change": {"gt": change, "lte": self._change}}})

    def _weights_of(self, field: str, since: Json) -> Iterator[TermBatch]:
        for sources in self._scan([since], ["row", field]):
            having = [source for source in sources if source.get(field) is not None]
            if not having:
                continue
            terms = [read_weights(item[field]) for item in having]
            weights = np.concatenate([term.weights for term in terms])
            yield TermBatch(
                np.array([item["row"] for item in having], dtype=np.int64),
                np.cumsum([0, *(len(term) for term in terms)], dtype=np.int64),
                np.concatenate([term.ids for term in terms]),
                np.zeros(0, dtype=np.float32) if bool((weights == 1.0).all()) else weights,
            )

    def vectors_since(self, change: int) -> Iterator[tuple[IdArray, VectorArray]]:
        since = {"range": {"vector_change": {"gt": change, "lte": self._change}}}
        for sources in self._scan([since], ["row", "vector"], 4 * _TEXT_PAGE):
            yield (
                np.array([source["row"] for source in sources], dtype=np.int64),
                np.stack([read_vector(source["vector"]) for source in sources]),
            )

    def removed_since(self, change: int) -> IdArray | None:
        query = {"bool": {"filter": [{"range": {"removed": {"gt": change, "lte": self._change}}}]}}
        pages = self._cluster.scan(self.names.passages, {"query": query, "_source": False}, "row", _ROWS_PAGE)
        found = [np.array([hit["sort"][0] for hit in hits], dtype=np.int64) for hits in pages]
        if change < self._floor():  # checked last, because a purge may have run while the rows were read
            return None
        return np.concatenate(found) if found else np.zeros(0, dtype=np.int64)

    def live_rows(self, *, encoded: bool = False) -> IdArray:
        return self.rows([self._encoded()] if encoded else [])

    def counts(self) -> StoreCounts:
        documents, passages, encoded = self._counts(
            (self.names.documents, self._visible()),
            (self.names.passages, self._visible()),
            (self.names.passages, self._visible([self._encoded()])),
        )
        return StoreCounts(documents, passages, encoded, self._change)

    def changed_documents(self, since: int) -> list[str]:
        return [item for ids in self._ids([{"range": {"change": {"gt": since}}}]) for item in ids]

    def document_ids(self) -> Iterator[list[str]]:
        return self._ids([])

    def _ids(self, filters: Sequence[Json]) -> Iterator[list[str]]:
        body = {"query": self._visible(filters), "_source": ["doc_id"]}
        for hits in self._cluster.scan(self.names.documents, body, "key", _ROWS_PAGE):
            yield [hit["_source"]["doc_id"] for hit in hits]

    def export(self, only: Sequence[str] | None = None) -> Iterator[ExportedDocument]:
        """Every document, or those of `only`, with its passages and encodings.

        Documents (by key) and passages (by row) are scanned in parallel, because both ascend in the same order.
        """
        if only is not None:
            for at in range(0, len(only), _TEXT_PAGE):
                yield from self._export([{"terms": {"doc_id": list(only[at : at + _TEXT_PAGE])}}])
        else:
            yield from self._export([])

    def _export(self, filters: Sequence[Json]) -> Iterator[ExportedDocument]:
        fields = ["row", "start", "end", BAG, VDR, "vector", "vector_change"]
        passages = (item for sources in self._scan(filters, fields) for item in sources)
        body = {"query": self._visible(filters)}
        for hits in self._cluster.scan(self.names.documents, body, "key", _TEXT_PAGE // 4):
            for hit in hits:
                source = hit["_source"]
                own: list[tuple[tuple[int, int], TermWeights, VectorArray | None, TermWeights | None]] = []
                for row in rows_of(source["key"], source["passages"]).tolist():
                    passage = next(passages, None)
                    if passage is None or passage["row"] != row:
                        raise CorruptionError(
                            f"a passage of document {source['doc_id']!r} is missing",
                            received=None if passage is None else passage["row"],
                            expected=f"row {row}",
                        )
                    encoded = passage.get("vector") is not None and passage["vector_change"] <= self._change
                    own.append(
                        (
                            (passage["start"], passage["end"]),
                            read_weights(passage[BAG]),
                            read_vector(passage["vector"]) if encoded else None,
                            read_weights(passage[VDR]) if encoded and passage.get(VDR) is not None else None,
                        )
                    )
                windows, bags, vectors, weights = zip(*own, strict=True)
                yield ExportedDocument(read_document(source), windows, bags, vectors, source["content_hash"], weights)

    def integrity(self) -> list[str]:
        """Integrity problems as messages: missing or orphaned passages, duplicate documents, inconsistent tiers."""
        expected: list[IdArray] = []
        ids: dict[str, int] = {}
        body = {"query": self._visible(), "_source": ["key", "passages", "doc_id"]}
        for hits in self._cluster.scan(self.names.documents, body, "key", _ROWS_PAGE):
            for hit in hits:
                source = hit["_source"]
                expected.append(rows_of(source["key"], source["passages"]))
                ids[source["doc_id"]] = ids.get(source["doc_id"], 0) + 1
        wanted = np.concatenate(expected) if expected else np.zeros(0, dtype=np.int64)
        found = self.live_rows()
        problems = [
            *(f"{n} passages are missing" for n in [len(np.setdiff1d(wanted, found))] if n),
            *(f"{n} passages belong to no document" for n in [len(np.setdiff1d(found, wanted))] if n),
            *(f"{n} documents stand there twice" for n in [sum(count > 1 for count in ids.values())] if n),
        ]
        (halves,) = self._counts((self.names.passages, self._visible([self._encoded()], [{"term": {"tier": "full"}}])))
        return problems + [f"{halves} passages have a vector and are not on the full tier"] * (halves > 0)
