"""An open generation on OpenSearch: its store on the cluster, and its dense index on this machine or the cluster."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path

from hyblink.app.core.errors import NotFoundError, UnavailableError
from hyblink.app.core.ports.views import WAITING_COUNTED, DenseView, Snapshot
from hyblink.app.core.settings import Settings
from hyblink.app.core.types.collections import GenerationRecord
from hyblink.app.core.types.documents import SparseForm
from hyblink.app.engines.dense.index import FaissIndex
from hyblink.app.engines.derived import AheadError
from hyblink.app.engines.opensearch.client import Cluster, Json
from hyblink.app.engines.opensearch.knn import KNN, KnnView
from hyblink.app.engines.opensearch.layout import VDR
from hyblink.app.engines.opensearch.merging import merge
from hyblink.app.engines.opensearch.passages import Bm25OnCluster, JointOnCluster, PassageSignals, SparseOnCluster
from hyblink.app.engines.opensearch.reader import ClusterReader
from hyblink.app.engines.opensearch.store import OpenSearchStore

log = logging.getLogger(__name__)
_WORTH_MERGING, _TIDY_PAUSE_S = 0.05, 300.0
"""A larger share than this is merged away while others search, at most so often."""
_TRIES = 200


def _is_current(snapshot: Snapshot, state: Json) -> bool:
    """Whether the store still stands where the snapshot was taken."""
    moments = state.get("moments") or [(state["change"], "")]
    return bool(snapshot.change == state["change"] and snapshot.reader.moment in {"", moments[-1][1]})


class NoOpFollower:
    """The `IndexFollower` of OpenSearch. The cluster indexes writes itself. `close` updates the FAISS index."""

    def __init__(self, engine: OpenSearchEngine) -> None:
        self._engine = engine

    def nudge(self) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Bring the dense index up to date with the store."""
        self._engine.snapshot()


class OpenSearchEngine:
    """The `Engine` of a generation on a cluster. What one process writes, all processes find in their next search."""

    def __init__(
        self,
        cluster: Cluster,
        store: OpenSearchStore,
        uid: str,
        record: GenerationRecord,
        folder: Path,
        settings: Settings,
    ) -> None:
        self._cluster = cluster
        self.store = store
        self._uid = uid
        self._record = record
        self.dense: FaissIndex | None = None
        if record.dense_dimension and record.dense_index != KNN:
            self.dense = FaissIndex(
                folder / "dense", record.dense_encoder, record.dense_dimension, record.dense_index, settings.dense
            )
        self._lock = threading.Lock()
        self._latest: Snapshot | None = None
        self._tidy_from = 0.0

    @property
    def record(self) -> GenerationRecord:
        return self._record

    def _state(self) -> Json:
        state = self.store.state()
        if state["uid"] != self._uid:
            raise NotFoundError("the generation has been deleted and made anew", received=self._record.id)
        return state

    def replaced(self) -> bool:
        try:
            return bool(self.store.state()["uid"] != self._uid)
        except NotFoundError:
            return True

    def snapshot(self) -> Snapshot:
        state = self._state()
        latest = self._latest
        if latest is not None and _is_current(latest, state):
            return latest
        with self._lock:
            for _ in range(_TRIES):
                latest = self._latest
                if latest is not None and _is_current(latest, state):
                    return latest
                reader = self.store.reader_at(state)
                bags = PassageSignals(self._cluster, reader)
                waiting = len(reader.unencoded(WAITING_COUNTED)) if self._record.vdr_model else 0
                vdr = PassageSignals(self._cluster, reader, field=VDR, settled=not waiting)
                try:
                    dense = self._dense(reader)
                except AheadError as ahead:
                    state = self._state()
                    if ahead.change > state["change"] and self.dense is not None:
                        log.error("the store stands at change %d, an index had seen %d", state["change"], ahead.change)
                        self.dense.forget()  # the store was put back from a copy
                    else:
                        time.sleep(0.01)  # another process on this machine has just published a newer build
                    continue
                latest = Snapshot(
                    reader.change,
                    reader,
                    Bm25OnCluster(bags),
                    SparseOnCluster(bags),
                    SparseOnCluster(vdr) if self._record.vdr_model else None,
                    dense,
                    waiting,
                    {SparseForm.BAG: JointOnCluster(bags), SparseForm.VDR: JointOnCluster(vdr)},
                )
                self._latest = latest
                return latest
        raise UnavailableError("the dense index did not settle on one moment of the store")

    def _dense(self, reader: ClusterReader) -> DenseView | None:
        if self._record.dense_index == KNN and self._record.dense_dimension:
            return KnnView(self._cluster, reader, self._record.dense_dimension)
        return self.dense.catch_up(reader) if self.dense else None

    def follow(self) -> NoOpFollower:
        return NoOpFollower(self)

    def check(self, *, repair: bool = False) -> list[str]:
        with self.store.writer(), self._lock:
            self._latest = None
            problems = self.store.uncommitted_entries(repair=repair)
            reader = self.store.reader()
            problems += reader.integrity()
            if self.dense is not None:
                found = self.dense.check(reader)
                problems += found
                if found and repair:
                    self.dense.rebuild(reader)
            return problems

    def outdated(self) -> float:
        return self.store.outdated()

    def tidy(self, more_than: float | None = None, *, patience_s: float = 0.0) -> None:
        if more_than is None and time.monotonic() < self._tidy_from:
            return
        self._tidy_from = time.monotonic() + _TIDY_PAUSE_S
        if self.outdated() > (_WORTH_MERGING if more_than is None else more_than):
            self.store.purge(self._cluster.settings.keep_removed_s)
            merge(self._cluster, self.store.names, patience_s, expunge=True)

    def compact(self, *, patience_s: float = 0.0) -> None:
        """Purge removed passages, merge the cluster's segments and rebuild the dense index.

        Lucene retains deleted entries for replicas that may have to recover, until the shards have exchanged their
        checkpoints, about twice a minute. The merge waits for that, at most `patience_s` seconds.
        """
        self.store.purge(self._cluster.settings.keep_removed_s)
        merge(self._cluster, self.store.names, patience_s)
        with self._lock:
            self._latest = None
            if self.dense is not None:
                self.dense.rebuild(self.store.reader())

    def close(self) -> None:
        with self._lock:
            self._latest = None
