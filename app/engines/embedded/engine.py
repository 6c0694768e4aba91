"""An open generation of the embedded engine: the SQLite store, its derived indexes, and snapshots of all of them."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path

from hyblink.app.analysis.analyzer import Analyzer
from hyblink.app.core.clock import now
from hyblink.app.core.errors import HyblinkError, UnavailableError, WriterConflictError
from hyblink.app.core.manifest import read_json, write_json
from hyblink.app.core.ports.views import WAITING_COUNTED, Snapshot
from hyblink.app.core.settings import Settings
from hyblink.app.core.types.collections import GenerationRecord
from hyblink.app.engines.dense.index import FaissIndex
from hyblink.app.engines.derived import AheadError
from hyblink.app.engines.disk import disk_errors, writable
from hyblink.app.engines.embedded.beside import indexes_beside
from hyblink.app.engines.embedded.bm25 import Bm25Index
from hyblink.app.engines.embedded.follower import Follower
from hyblink.app.engines.embedded.sparse.index import SparseIndex
from hyblink.app.engines.embedded.store.store import SqliteStore

log = logging.getLogger(__name__)
_SET_BACK = "set-back.json"
"""Written when the store is found to have lost changes, read by `fsck`, removed by `fsck --repair`."""
_NOT_INDEXED = "an index could not be brought up to date; nothing stored is lost"
_WORTH_MERGING = 0.2
_TRIES = 200
_RELEASE_S = 5.0


def _release_stale(release: weakref.WeakMethod[Callable[[], None]], closed: threading.Event) -> None:
    while not closed.wait(_RELEASE_S) and (method := release()) is not None:
        with suppress(HyblinkError):
            method()
        del method


class EmbeddedEngine:
    """The `Engine` of a generation folder: `store.sqlite`, and the indexes `bm25/`, `sparse/`, `vdr/` and `dense/`."""

    def __init__(self, folder: Path, record: GenerationRecord, settings: Settings) -> None:
        self.folder = folder
        self.settings = settings
        self._record = record
        finished = (folder / "generation.json").exists()
        self.store = SqliteStore(
            folder / "store.sqlite", writer_wait_s=settings.ingest.writer_wait_s, create=not finished
        )
        self._beside = None if writable(folder) else indexes_beside(folder)
        indexes = folder if self._beside is None else Path(self._beside.name)
        self.bm25 = Bm25Index(indexes / "bm25", Analyzer(record.analyzer))
        self.sparse = SparseIndex(indexes / "sparse", record.vdr_encoder)
        self.vdr = SparseIndex(indexes / "vdr", record.vdr_model, encoded=True) if record.vdr_model else None
        self.dense: FaissIndex | None = None
        if record.dense_dimension:
            self.dense = FaissIndex(
                indexes / "dense",
                record.dense_encoder,
                record.dense_dimension,
                record.dense_index,
                settings.dense,
            )
        self._inode = self.store.path.stat().st_ino
        self._lock = threading.Lock()
        self._latest: Snapshot | None = None
        self._closed = threading.Event()
        let_go, release = weakref.WeakMethod(self._let_go), weakref.WeakMethod(self._release)
        self.store.after_change = lambda: (method := let_go()) and method()
        threading.Thread(target=_release_stale, args=(release, self._closed), daemon=True, name="hyblink-wal").start()

    @property
    def record(self) -> GenerationRecord:
        return self._record

    def replaced(self) -> bool:
        """Whether the store file that was opened is gone: deleted or recreated by another process."""
        try:
            return self.store.path.stat().st_ino != self._inode
        except FileNotFoundError:
            return True

    def _let_go(self) -> None:
        # An outdated snapshot is never returned, but its read transaction keeps SQLite from truncating its WAL.
        self._latest = None

    def _release(self) -> None:
        """Drop the latest snapshot if another process has written since."""
        latest = self._latest
        if latest is not None and latest.reader.moment != self.store.moment():
            self._let_go()

    def _current(self) -> Snapshot | None:
        """The latest snapshot if the store still stands there."""
        latest = self._latest
        return latest if latest is not None and latest.reader.moment == self.store.moment() else None

    def snapshot(self) -> Snapshot:
        current = self._current()
        if current is not None:
            return current
        with self._lock:
            for _ in range(_TRIES):
                current = self._current()
                if current is not None:
                    return current
                try:
                    with disk_errors(_NOT_INDEXED):
                        reader = self.store.reader()
                        latest = Snapshot(
                            reader.change,
                            reader,
                            self.bm25.catch_up(reader),
                            self.sparse.catch_up(reader),
                            self.vdr.catch_up(reader) if self.vdr else None,
                            self.dense.catch_up(reader) if self.dense else None,
                            len(reader.unencoded(WAITING_COUNTED)) if self._record.vdr_model else 0,
                        )
                except AheadError as ahead:
                    if ahead.change > self.store.change():
                        self._set_back(ahead.change)
                    else:
                        time.sleep(0.01)  # another process has just applied a newer write
                    continue
                self._latest = latest
                return latest
        raise UnavailableError("the indexes did not settle on one moment of the store")

    def _set_back(self, seen: int) -> None:
        """Forget the indexes that know more than the store: it has lost writes, or was put back from a copy."""
        stands = self.store.change()
        log.error("the store of %s stands at change %d, an index had seen %d", self.folder.name, stands, seen)
        if self._beside is None:
            write_json(self.folder / _SET_BACK, {"at": now(), "change": stands, "seen": seen})
        for index in self._indexes():
            index.forget()

    def _noticed(self, *, repair: bool) -> list[str]:
        """The notice that the store was set back, if there is one. `repair` takes it away."""
        try:
            found = read_json(self.folder / _SET_BACK)
        except FileNotFoundError:
            return []
        if repair:
            (self.folder / _SET_BACK).unlink(missing_ok=True)
        stood = f"on {found.get('at')} the store stood at change {found.get('change')}"
        said = f"{stood} though an index had seen {found.get('seen')}"
        return [f"{said}: it was put back from a copy, or has lost writes"]

    def follow(self) -> Follower:
        """Start updating the indexes in the background while documents are written. The caller closes it."""
        return Follower(self)

    def check(self, *, repair: bool = False) -> list[str]:
        """Compare store and indexes and return the problems as messages. `repair` rebuilds an index that differs."""
        alone = self.store.writer() if self._beside is None else nullcontext()
        with self._lock, alone, disk_errors(_NOT_INDEXED):
            self._latest = None
            reader = self.store.reader()
            problems = [*self._noticed(repair=repair), *reader.integrity()]
            for index in self._indexes():
                try:
                    found = index.check(reader)
                except AheadError as ahead:
                    self._set_back(ahead.change)
                    found = self._noticed(repair=repair)
                problems += found
                if found and repair:
                    index.rebuild(reader)
            return problems

    def compact(self, *, patience_s: float = 0.0) -> None:  # noqa: ARG002
        """Merge recent updates into the published bases, and purge tombstones that all of them have applied.

        If another process is writing, tombstones stay until the next call. `patience_s` is not used.
        """
        with self._lock, disk_errors(_NOT_INDEXED):
            reader = self.store.reader()
            self.bm25.compact(reader)
            self.sparse.compact(reader)
            if self.vdr:
                self.vdr.compact(reader)
            if self.dense:
                self.dense.rebuild(reader)
            self._latest = None
            standing = [index.published_change() for index in self._indexes()]
        with suppress(WriterConflictError):
            self.store.forget_tombstones(min(*standing, reader.change))

    def outdated(self) -> float:
        return self.bm25.outdated()

    def tidy(self, more_than: float | None = None, *, patience_s: float = 0.0) -> None:  # noqa: ARG002
        if self._beside is None and self.outdated() > (_WORTH_MERGING if more_than is None else more_than):
            with self._lock, disk_errors(_NOT_INDEXED):
                self.bm25.compact(self.store.reader())
                self._latest = None

    def _indexes(self) -> list[Bm25Index | SparseIndex | FaissIndex]:
        """All indexes derived from the store."""
        return [item for item in (self.bm25, self.sparse, self.vdr, self.dense) if item is not None]

    def publish_sparse(self) -> None:
        """Write the in-memory segments of the bag-of-tokens index to disk as a new base."""
        with self._lock, disk_errors(_NOT_INDEXED):
            self.sparse.compact(self.store.reader())
            self._latest = None

    def close(self) -> None:
        self._closed.set()
        with self._lock:
            self._latest = None
            self.store.close()
        if self._beside is not None:
            self._beside.cleanup()
