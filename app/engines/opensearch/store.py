"""The passage store on OpenSearch, with one writer at a time across all machines.

A write adds new entries, marks the entries that it replaces as removed, and refreshes both indexes. Then it raises the
change counter in the state document, which is the commit. Entries above the counter, left by a writer that crashed,
are invisible, and the next writer rolls them back.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

import numpy as np

from hyblink.app.core.errors import HyblinkError, NotFoundError, UnavailableError
from hyblink.app.core.ports.store import PreparedDocument, SourceProgress, check_progress, next_moment
from hyblink.app.core.types.arrays import IdArray, TermWeights, VectorArray
from hyblink.app.core.types.documents import BulkItem, BulkResult
from hyblink.app.engines.opensearch import query_builder as build
from hyblink.app.engines.opensearch.client import BULK_PATIENCE_S, Cluster, ItemError, Json
from hyblink.app.engines.opensearch.knn import KNN
from hyblink.app.engines.opensearch.layout import (
    MAX_PASSAGES,
    NEVER,
    ORDINAL_BITS,
    VDR,
    Names,
    document_source,
    is_visible,
    passage_sources,
    rows_of,
    vector_field,
    weights_field,
)
from hyblink.app.engines.opensearch.lease import FREE, Lease
from hyblink.app.engines.opensearch.reader import ClusterReader, DocumentVersions
from hyblink.app.engines.opensearch.state import StateDocuments, Versioned

_LOOKED_UP = 1000
_PURGE_ABOVE = 1000
_PURGE_SHARE = 0.1
_KEYS_LEFT = 1 << 20
"""How many keys are skipped after a failed write: more than one write can use."""

log = logging.getLogger(__name__)
_MOMENTS = 64
"""Moments of so many changes are known, see `StoreReader.moment`. What was made at an older one is trusted."""


def new_state(uid: str) -> Json:
    """The state document of an empty store. `uid` identifies this store, even if its name is used again later."""
    return {
        **FREE,
        "uid": uid,
        "change": 0,
        "next_key": 1,
        "floor": 0,
        "removed_passages": 0,
        "progress": {},
    }


@dataclass(frozen=True, slots=True)
class _Known:
    """A document version that is visible when a write begins."""

    key: int
    passages: int
    content_hash: str
    metadata: Json


class _RefusedError(Exception):
    """The cluster refused entries of some documents: `keys` maps their places in the request to the reasons."""

    def __init__(self, keys: dict[int, str]) -> None:
        super().__init__(f"{len(keys)} documents were refused")
        self.keys = keys


class OpenSearchStore:
    """The `PassageStore` of one generation on a cluster. Safe to share between threads."""

    def __init__(
        self, cluster: Cluster, documents: StateDocuments, path: str, names: Names, *, writer_wait_s: float, knn: bool
    ) -> None:
        """`path` is that of the state document. With `knn`, vectors are also written to the k-NN plugin's field."""
        self._cluster = cluster
        self._documents = documents
        self._path = path
        self.names = names
        self._knn = knn
        self._lease = Lease(documents, path, lease_s=cluster.settings.writer_lease_s, wait_s=writer_wait_s)
        self._unclean = False
        self._under_way = False  # whether requests of a failed write may still reach the cluster
        self.heads = DocumentVersions(cluster, names.documents)

    def state(self) -> Json:
        """The state document. Raises NotFoundError if the generation has been deleted."""
        found: Versioned | None = self._documents.get(self._path)
        if found is None:
            raise NotFoundError("the generation has been deleted", received=self._path)
        return found.value

    def change(self) -> int:
        return int(self.state()["change"])

    def reader(self) -> ClusterReader:
        return self.reader_at(self.state())

    def reader_at(self, state: Json) -> ClusterReader:
        """A snapshot of the store at the change counter of a state document."""
        moments = {int(change): str(moment) for change, moment in state.get("moments", ())}
        return ClusterReader(self._cluster, self.names, int(state["change"]), self._floor, self.heads, moments)

    def _floor(self) -> int:
        found = self._documents.get_many([self._path])[self._path]
        return NEVER if found is None else int(found.value["floor"])

    def progress(self, source: str) -> str | None:
        position = self.state()["progress"].get(source)
        return None if position is None else str(position)

    def sources(self) -> dict[str, str]:
        return dict(self.state()["progress"])

    @contextmanager
    def writer(self) -> Iterator[None]:
        with self._lease.held() as unclean:
            self._unclean, self._under_way = self._unclean or unclean, self._under_way or unclean
            self._lease.clean = not self._unclean
            yield

    @contextmanager
    def _transaction(self) -> Iterator[Json]:
        """Yields the current state. If the body fails, the next transaction first rolls back what it wrote."""
        with self.writer():
            if self._unclean:
                self._roll_back()
                self._unclean, self._under_way, self._lease.clean = False, False, True
            try:
                yield self._lease.value
            except BaseException as error:
                self._unclean, self._lease.clean = True, False
                # After _RefusedError every request has been answered, so none can still arrive.
                self._under_way = self._under_way or not isinstance(error, _RefusedError)
                raise

    def _commit(self, change: int, **changes: object) -> None:
        self._cluster.refresh(self.names.passages, self.names.documents)
        known = self._lease.value.get("moments", [])
        before = known[-1][1] if known else self._lease.value["uid"]
        moments = [*known, [change, next_moment(before, change)]][-_MOMENTS:]
        self._lease.update({"change": change, "moments": moments, **changes})

    @property
    def _aliases(self) -> Names:
        return self.names.written(self._lease.value["term"])

    def _roll_back(self) -> None:
        """Lock out earlier writers (fencing) and roll back what they wrote above the change counter.

        Their keys are not reused. Requests that may still be running are waited for: the cluster drops them after
        `BULK_PATIENCE_S` seconds.
        """
        held = self._lease.value
        self._lease.update({"term": held["term"] + 1, "next_key": held["next_key"] + _KEYS_LEFT})
        aliases = self._aliases
        fence = [
            action
            for index, alias in ((self.names.passages, aliases.passages), (self.names.documents, aliases.documents))
            for action in (
                {"remove": {"index": index, "alias": f"{index}-w*", "must_exist": False}},
                {"add": {"index": index, "alias": alias}},
            )
        ]
        self._cluster.call(lambda: self._cluster.client.indices.update_aliases(body={"actions": fence}))
        if self._under_way:
            time.sleep(BULK_PATIENCE_S)
        self._cluster.refresh(self.names.passages, self.names.documents)
        change = self._lease.value["change"]
        undone = 0
        for index, alias, number in (
            (self.names.passages, aliases.passages, "row"),
            (self.names.documents, aliases.documents, "key"),
        ):
            added = self._ids(index, [{"range": {"change": {"gt": change}}}], number)
            undone += self._must(({"delete": {"_index": alias, "_id": item}}, None) for item in added)
            marked = self._ids(
                index, [{"range": {"change": {"lte": change}}}, {"range": {"removed": {"gt": change}}}], number
            )
            undone += self._must(
                ({"update": {"_index": alias, "_id": item}}, {"doc": {"removed": None, "removed_at": None}})
                for item in marked
            )
        if undone:
            log.warning("took back %d entries of a write that was cut short", undone)
            self._cluster.refresh(self.names.passages, self.names.documents)

    def _ids(self, index: str, filters: list[Json], number: str) -> Iterator[str]:
        body = {"query": {"bool": {"filter": filters}}, "_source": False}
        for hits in self._cluster.scan(index, body, number, 5000):
            yield from (hit["_id"] for hit in hits)

    def _must(self, actions: Iterator[tuple[Json, Json | None]]) -> int:
        """Send bulk items and return their number. Raises UnavailableError if any is refused."""
        sent = 0

        def counted() -> Iterator[tuple[Json, Json | None]]:
            nonlocal sent
            for action in actions:
                sent += 1
                yield action

        # Deleting an entry that does not exist (404) is no error.
        refused = [item for item in self._cluster.bulk(counted()) if item.status != 404]
        if refused:
            raise UnavailableError(f"OpenSearch refused {len(refused)} entries, the first because {refused[0].reason}")
        return sent

    def _known(self, ids: Sequence[str], change: int) -> dict[str, _Known]:
        found: dict[str, _Known] = {}
        for at in range(0, len(ids), _LOOKED_UP):
            some = list(ids[at : at + _LOOKED_UP])
            body = {
                "size": len(some),
                "query": build.seen_at(change, [{"terms": {"doc_id": some}}]),
                "_source": ["key", "doc_id", "passages", "content_hash", "metadata"],
            }
            for hit in self._cluster.search(self.names.documents, body)["hits"]["hits"]:
                source = hit["_source"]
                found[source["doc_id"]] = _Known(
                    source["key"], source["passages"], source["content_hash"], source["metadata"]
                )
        return found

    def write(
        self, documents: Sequence[PreparedDocument | BulkItem], *, progress: SourceProgress | None = None
    ) -> BulkResult:
        documents = [_checked(document) for document in documents]
        while True:
            try:
                return self._write(documents, progress)
            except _RefusedError as error:
                # The whole write is rolled back and repeated without the documents that cannot be stored.
                documents = [
                    BulkItem(document.document.id, "rejected", 0, "invalid_input", f"OpenSearch refused it: {reason}")
                    if isinstance(document, PreparedDocument) and (reason := error.keys.get(at))
                    else document
                    for at, document in enumerate(documents)
                ]

    def _write(self, documents: Sequence[PreparedDocument | BulkItem], progress: SourceProgress | None) -> BulkResult:
        with self._transaction() as state:
            if progress:
                check_progress(progress, state["progress"].get(progress.source))
            change, first = state["change"] + 1, state["next_key"]
            known = self._known(
                [document.document.id for document in documents if isinstance(document, PreparedDocument)],
                state["change"],
            )
            items: list[BulkItem] = []
            fresh: list[tuple[int, PreparedDocument, _Known | None]] = []
            places: dict[int, int] = {}
            rows: list[int] = []
            for at, document in enumerate(documents):
                if isinstance(document, BulkItem):
                    items.append(document)
                    continue
                old = known.get(document.document.id)
                count = len(document.windows)
                if (
                    old
                    and old.content_hash == document.content_hash
                    and old.metadata == dict(document.document.metadata)
                ):
                    items.append(BulkItem(document.document.id, "unchanged", count))
                    continue
                key = first + len(fresh)
                fresh.append((key, document, old))
                places[key] = at
                items.append(BulkItem(document.document.id, "updated" if old else "created", count))
                if not (old and old.content_hash == document.content_hash):
                    rows += rows_of(key, count).tolist()
            if not fresh:
                if progress:
                    self._lease.update({"progress": {**state["progress"], progress.source: progress.position}})
                return BulkResult(tuple(items), state["change"], tuple(rows))
            refused = self._cluster.bulk(self._entries(fresh, change))
            if refused:
                keys = {self._key_of(error): error.reason for error in refused}
                if any(error.status != 400 for error in refused) or not keys.keys() <= places.keys():
                    raise UnavailableError(
                        f"OpenSearch did not take {len(refused)} entries, the first because {refused[0].reason}"
                    )
                raise _RefusedError({places[key]: reason for key, reason in keys.items()})
            gone = sum(old.passages for _, _, old in fresh if old)
            self._commit(
                change,
                next_key=first + len(fresh),
                removed_passages=state["removed_passages"] + gone,
                **({"progress": {**state["progress"], progress.source: progress.position}} if progress else {}),
            )
            self._purge_if_due()
        return BulkResult(tuple(items), change, tuple(rows))

    def _entries(
        self, fresh: Sequence[tuple[int, PreparedDocument, _Known | None]], change: int
    ) -> Iterator[tuple[Json, Json | None]]:
        aliases = self._aliases
        for key, item, old in fresh:
            document, count = item.document, len(item.windows)
            index: Json = {"_index": aliases.documents, "_id": str(key)}
            yield {"create": index}, document_source(document, key, count, item.content_hash, change)
            entries: Iterator[tuple[int, Json]] = passage_sources(document, key, item.windows, item.bags, change)
            if old and old.content_hash == item.content_hash:
                entries = self._with_vectors(entries, old, change)
            for row, source in entries:
                yield {"create": {"_index": aliases.passages, "_id": str(row)}}, source
            if old:
                yield from self._removal(old, change)

    def _with_vectors(
        self, entries: Iterator[tuple[int, Json]], old: _Known, change: int
    ) -> Iterator[tuple[int, Json]]:
        """The entries of a document whose metadata alone changed, with the vectors and weights of the old version."""
        before = iter(rows_of(old.key, old.passages).tolist())
        while some := list(islice(entries, 500)):
            wanted = list(islice(before, len(some)))
            sources = self._sources(wanted, ["vector", "vector_change", VDR, *([KNN] if self._knn else [])])
            for (row, source), old_row in zip(some, wanted, strict=True):
                vector = sources[old_row].get("vector")
                kept = {} if vector is None else {**sources[old_row], "vector_change": change, "tier": "full"}
                yield row, {**source, **kept}

    def _sources(self, rows: Sequence[int], fields: list[str]) -> dict[int, Json]:
        """Row → current fields of the passages that exist."""
        if not rows:
            return {}
        read = self._cluster.get_many(self.names.passages, [str(row) for row in rows], fields)
        return {int(item["_id"]): item["_source"] for item in read}

    def _removal(self, old: _Known, change: int) -> Iterator[tuple[Json, Json | None]]:
        """The bulk items that mark a document version and its passages as removed at the counter `change`."""
        aliases = self._aliases
        mark = {"doc": {"removed": change, "removed_at": int(self._cluster.time())}}
        yield {"update": {"_index": aliases.documents, "_id": str(old.key)}}, mark
        for row in rows_of(old.key, old.passages).tolist():
            yield {"update": {"_index": aliases.passages, "_id": str(row)}}, mark

    def delete(self, doc_ids: Sequence[str]) -> BulkResult:
        items: list[BulkItem] = []
        with self._transaction() as state:
            change = state["change"] + 1
            known = self._known(list(dict.fromkeys(doc_ids)), state["change"])
            gone: list[_Known] = []
            for doc_id in doc_ids:
                old = known.pop(doc_id, None)
                if old is None:
                    items.append(BulkItem(doc_id, "not_found"))
                else:
                    gone.append(old)
                    items.append(BulkItem(doc_id, "deleted", old.passages))
            if not gone:
                return BulkResult(tuple(items), state["change"])
            self._must(action for old in gone for action in self._removal(old, change))
            passages = sum(old.passages for old in gone)
            self._commit(change, removed_passages=state["removed_passages"] + passages)
            self._purge_if_due()
        return BulkResult(tuple(items), change)

    def put_vectors(self, rows: IdArray, vectors: VectorArray, weights: Sequence[TermWeights] = ()) -> int:
        with self._transaction() as state:
            now, change = state["change"], state["change"] + 1
            sources = self._sources(rows.tolist(), ["change", "removed", "vector_change"])
            alias = self._aliases.passages
            waiting = [
                at
                for at, row in enumerate(rows.tolist())
                if row in sources
                and is_visible(sources[row], now)
                and (sources[row].get("vector_change") is None or sources[row]["vector_change"] > now)
            ]
            if not waiting:
                return 0
            self._must(
                (
                    {"update": {"_index": alias, "_id": str(int(rows[at]))}},
                    {"doc": {**self._encoded(at, vectors, weights), "vector_change": change, "tier": "full"}},
                )
                for at in waiting
            )
            self._commit(change)
        return len(waiting)

    def _encoded(self, at: int, vectors: VectorArray, weights: Sequence[TermWeights]) -> Json:
        fields: Json = {"vector": vector_field(vectors[at])}
        if weights:
            fields[VDR] = weights_field(weights[at])
        if self._knn:
            fields[KNN] = vectors[at].astype(np.float16).astype(np.float32).tolist()
        return fields

    def outdated(self) -> float:
        """The share of entries of removed passages that the statistics still count, 0 to 1."""
        stats = self._cluster.call(
            lambda: self._cluster.client.indices.stats(index=self.names.passages, metric="docs")
        )["_all"]["primaries"]["docs"]
        entries = int(stats["count"]) + int(stats["deleted"])
        return 1 - self.reader().counts().passages / entries if entries else 0.0

    def _purge_if_due(self) -> None:
        """Purge if many passages are removed. Errors are logged only, because the write itself is committed."""
        try:
            state = self._lease.value
            if state["removed_passages"] < _PURGE_ABOVE:
                return
            if state["removed_passages"] > _PURGE_SHARE * self.reader_at(state).counts().passages:
                self.purge(self._cluster.settings.keep_removed_s)
        except HyblinkError as error:
            log.warning("removed passages were not purged, a later write tries again: %s", error)

    def purge(self, older_than_s: float) -> int:
        """Delete the entries removed more than `older_than_s` seconds ago. Returns the number of passages deleted.

        Searches that began before the removal still need them, so it must be longer than any search takes.
        """
        with self._transaction() as state:
            bar = int(self._cluster.time() - older_than_s)
            due = [{"range": {"removed_at": {"lte": bar}}}, {"range": {"removed": {"lte": state["change"]}}}]
            answer = self._cluster.search(
                self.names.passages,
                {
                    "size": 0,
                    "track_total_hits": True,
                    "query": {"bool": {"filter": due}},
                    "aggs": {"newest": {"max": {"field": "removed"}}},
                },
            )
            gone = int(answer["hits"]["total"]["value"])
            if not gone:
                return 0
            floor = max(int(state["floor"]), int(answer["aggregations"]["newest"]["value"]))
            # Raise the floor before deleting, so that an index that has not applied these removals rebuilds itself.
            self._lease.update({"floor": floor, "removed_passages": max(0, state["removed_passages"] - gone)})
            aliases = self._aliases
            for index, alias, number in (
                (self.names.passages, aliases.passages, "row"),
                (self.names.documents, aliases.documents, "key"),
            ):
                ids = self._ids(index, due, number)
                self._must(({"delete": {"_index": alias, "_id": item}}, None) for item in ids)
            self._cluster.refresh(self.names.passages, self.names.documents)
            return gone

    def uncommitted_entries(self, *, repair: bool = False) -> list[str]:
        """Messages about entries above the change counter, left by a crashed writer. `repair` rolls them back.

        The caller holds the writer's lease.
        """
        change = self._lease.value["change"]
        above = {"bool": {"should": [{"range": {"change": {"gt": change}}}, {"range": {"removed": {"gt": change}}}]}}
        self._cluster.refresh(self.names.passages, self.names.documents)
        problems = []
        for index in (self.names.passages, self.names.documents):
            answer = self._cluster.search(index, {"size": 0, "track_total_hits": True, "query": above})
            count = int(answer["hits"]["total"]["value"])
            problems += [f"{count} entries of {index} are of a write that was cut short"] * (count > 0)
        if problems and repair:
            self._under_way = True
            self._roll_back()
            self._unclean, self._under_way, self._lease.clean = False, False, True
        return problems

    def _key_of(self, error: ItemError) -> int:
        number = int(error.item_id)
        return number if error.index == self.names.documents else number >> ORDINAL_BITS


def _checked(prepared_document: PreparedDocument | BulkItem) -> PreparedDocument | BulkItem:
    if isinstance(prepared_document, BulkItem) or len(prepared_document.windows) < MAX_PASSAGES:
        return prepared_document
    message = f"received {len(prepared_document.windows)} passages; expected fewer than {MAX_PASSAGES}"
    return BulkItem(prepared_document.document.id, "rejected", 0, "too_large", message)
