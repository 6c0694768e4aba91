"""The embedded passage store: one SQLite file in WAL mode, one writer, many readers.

A row number is never reused: a changed document gets new rows and its old ones become tombstones. Applying a change
to an index is therefore idempotent.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import orjson

from hyblink.app.core.errors import CorruptionError, WriterConflictError
from hyblink.app.core.filters import facets_of
from hyblink.app.core.ports.store import (
    PreparedDocument,
    SourceProgress,
    check_progress,
    next_moment,
)
from hyblink.app.core.sections import encode_sections, sections_of
from hyblink.app.core.types.arrays import IdArray, TermWeights, VectorArray
from hyblink.app.core.types.documents import (
    BulkItem,
    BulkResult,
    Metadata,
    file_name_of,
)
from hyblink.app.engines.disk import disk_errors
from hyblink.app.engines.embedded.store.checksums import (
    COLUMNS,
    blob_checksum,
    checksum,
    document_checksum,
    place_checksum,
)
from hyblink.app.engines.embedded.store.coding import encode_path, encode_terms
from hyblink.app.engines.embedded.store.connection import connect, transaction, translated
from hyblink.app.engines.embedded.store.reader import RowOwners, SqliteReader
from hyblink.app.engines.embedded.store.schema import NEWEST_MOMENT, migrate

_MAX_VARIABLES = 30_000


def _chunks(values: Sequence[Any], size: int = _MAX_VARIABLES) -> Iterator[Sequence[Any]]:
    for at in range(0, len(values), size):
        yield values[at : at + size]


def _marks(count: int) -> str:
    return ",".join("?" * count)


class SqliteStore:
    """The `PassageStore` in an SQLite file. One process at a time writes, holding a file lock.

    `writer_wait_s` is how long a write waits for the lock, in seconds.
    """

    def __init__(self, path: Path, *, writer_wait_s: float = 10.0, create: bool = True) -> None:
        """Without `create`, raises CorruptionError if the file is missing or empty: a lost store is no empty one."""
        if not create:
            _check_there(path)
        with disk_errors():
            path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.after_change: Callable[[], None] = lambda: None
        """A callback that runs after each committed transaction."""
        self._owners = RowOwners()
        self._wait = writer_wait_s
        self._mutex = threading.RLock()
        self._file_lock = filelock.FileLock(path.with_suffix(".writer.lock"), thread_local=False)
        self._owner_file = path.with_suffix(".writer.pid")
        with translated():
            self._connection = connect(path)
            migrate(self._connection)
            self._peek = connect(path)  # for short reads that must not wait for a transaction in progress
            self._peek_lock = threading.Lock()

    def close(self) -> None:
        """Close the store's own connections. Open readers stay usable."""
        with self._mutex, self._peek_lock:
            self._connection.close()
            self._peek.close()

    def __del__(self) -> None:
        for name in ("_connection", "_peek"):
            with suppress(sqlite3.Error, AttributeError):
                getattr(self, name).close()

    def reader(self) -> SqliteReader:
        return SqliteReader(self.path, self._owners)

    def change(self) -> int:
        with self._peek_lock, translated():
            return int(self._peek.execute("SELECT value FROM meta WHERE key = 'change'").fetchone()[0])

    def moment(self) -> str:
        """The digest of the newest change and all before it; see `StoreReader.moment`."""
        with self._peek_lock, translated():
            return str(self._peek.execute(NEWEST_MOMENT).fetchone()[1])

    @contextmanager
    def writer(self) -> Iterator[None]:
        """Hold the writer lock. It is exclusive between threads and processes and reentrant within a thread.

        Raises WriterConflictError if it is not free within `writer_wait_s` seconds.
        """
        if not self._mutex.acquire(timeout=self._wait):
            raise WriterConflictError("another thread is writing to this collection", expected="one writer at a time")
        try:
            try:
                with disk_errors():
                    self._file_lock.acquire(timeout=self._wait)
            except filelock.Timeout:
                owner = self._owner_file.read_text() if self._owner_file.exists() else "unknown"
                raise WriterConflictError(
                    f"another process is writing to this collection (waited {self._wait:g} s)",
                    received=f"writer with process id {owner}",
                    expected="one writer at a time; try again when it is done",
                ) from None
            try:
                if self._file_lock.lock_counter == 1:
                    self._owner_file.write_text(str(os.getpid()))
                yield
            finally:
                self._file_lock.release()
        finally:
            self._mutex.release()

    @contextmanager
    def _transaction(self) -> Iterator[Callable[..., sqlite3.Cursor]]:
        with self.writer(), translated(), transaction(self._connection):
            yield self._connection.execute
        self.after_change()

    @staticmethod
    def _advance(run: Callable[..., sqlite3.Cursor], change: int) -> None:
        """Set the change counter, and chain the change's moment to the one before."""
        _, before = run(NEWEST_MOMENT).fetchone()
        run("INSERT INTO moments VALUES (?, ?)", (change, next_moment(before, change)))
        run("UPDATE meta SET value = ? WHERE key = 'change'", (change,))

    @staticmethod
    def _meta(run: Callable[..., sqlite3.Cursor], key: str) -> int:
        return int(run("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()[0])

    def progress(self, source: str) -> str | None:
        with self._peek_lock, translated():
            row = self._peek.execute("SELECT position FROM progress WHERE source = ?", (source,)).fetchone()
        return row[0] if row else None

    def sources(self) -> dict[str, str]:
        with self._peek_lock, translated():
            return dict(self._peek.execute("SELECT source, position FROM progress").fetchall())

    def write(
        self, documents: Sequence[PreparedDocument | BulkItem], *, progress: SourceProgress | None = None
    ) -> BulkResult:
        items: list[BulkItem] = []
        rows: list[int] = []
        with self._transaction() as run:
            if progress:
                stored = run("SELECT position FROM progress WHERE source = ?", (progress.source,)).fetchone()
                check_progress(progress, stored[0] if stored else None)
            change = self._meta(run, "change") + 1
            next_row, next_pk = self._meta(run, "next_row"), self._meta(run, "next_pk")
            first_row = next_row
            prepared = [item for item in documents if isinstance(item, PreparedDocument)]
            known: dict[str, tuple[int, str, str]] = {}
            for chunk in _chunks([item.document.id for item in prepared]):
                sql = f"SELECT id, pk, content_hash, metadata FROM documents WHERE id IN ({_marks(len(chunk))})"
                known |= {doc: (pk, stored, metadata) for doc, pk, stored, metadata in run(sql, chunk)}
            new_documents, new_passages, new_terms, new_facets = [], [], [], []
            touched = False
            for item in documents:
                if isinstance(item, BulkItem):
                    items.append(item)
                    continue
                document = item.document
                metadata = orjson.dumps(dict(document.metadata), option=orjson.OPT_SORT_KEYS).decode()
                old = known.get(document.id)
                if old and old[1] == item.content_hash:
                    if old[2] == metadata:
                        items.append(BulkItem(document.id, "unchanged", len(item.windows)))
                        continue
                    crc = document_checksum(
                        old[0], document.id, document.title, document.text, document.lang, metadata, old[1],
                        encode_sections(document.sections), file_name_of(document.title, document.metadata),
                    )  # fmt: skip
                    sql = "UPDATE documents SET metadata = ?, change = ?, crc = ? WHERE pk = ?"
                    run(sql, (metadata, change, crc, old[0]))
                    run("DELETE FROM facets WHERE doc_pk = ?", (old[0],))
                    new_facets += _facets(old[0], document.metadata)
                    items.append(BulkItem(document.id, "updated", len(item.windows)))
                    touched = True
                    continue
                if old:
                    self._remove(run, old[0], change)
                touched = True
                pk = next_pk
                next_pk += 1
                values = (
                    pk, document.id, document.title, document.text, document.lang, metadata, item.content_hash,
                    encode_sections(document.sections), file_name_of(document.title, document.metadata),
                )  # fmt: skip
                new_documents.append((*values, change, document_checksum(*values)))
                sections = sections_of(document, item.windows)
                for ordinal, ((start, end), bag) in enumerate(zip(item.windows, item.bags, strict=True)):
                    section = next(sections)
                    place = (next_row, pk, ordinal, start, end, encode_path(section.path), section.place)
                    new_passages.append((*place, change, place_checksum(*place)))
                    terms = encode_terms(bag)
                    new_terms.append((next_row, *terms, blob_checksum(next_row, *terms)))
                    next_row += 1
                new_facets += _facets(pk, document.metadata)
                items.append(BulkItem(document.id, "updated" if old else "created", len(item.windows)))
            many = self._connection.executemany
            many(f"INSERT INTO documents ({COLUMNS['documents']}, change, crc) VALUES ({_marks(11)})", new_documents)
            many(f"INSERT INTO passages ({COLUMNS['passages']}, change, crc) VALUES ({_marks(9)})", new_passages)
            many("INSERT INTO terms VALUES (?,?,?,?)", new_terms)
            many("INSERT INTO facets VALUES (?,?,?,?)", new_facets)
            run("UPDATE meta SET value = ? WHERE key = 'next_row'", (next_row,))
            run("UPDATE meta SET value = ? WHERE key = 'next_pk'", (next_pk,))
            if progress:
                crc = checksum(progress.source, progress.position)
                run("INSERT OR REPLACE INTO progress VALUES (?, ?, ?)", (progress.source, progress.position, crc))
            if touched:
                self._advance(run, change)
            else:
                change -= 1
            rows = list(range(first_row, next_row))
        return BulkResult(tuple(items), change, tuple(rows))

    @staticmethod
    def _remove(run: Callable[..., sqlite3.Cursor], pk: int, change: int) -> int:
        gone = [row for (row,) in run("SELECT row FROM passages WHERE doc_pk = ?", (pk,)).fetchall()]
        for row in gone:
            run("INSERT INTO tombstones VALUES (?, ?)", (row, change))
            run("DELETE FROM terms WHERE row = ?", (row,))
            run("DELETE FROM vectors WHERE row = ?", (row,))
            run("DELETE FROM weights WHERE row = ?", (row,))
        run("DELETE FROM passages WHERE doc_pk = ?", (pk,))
        run("DELETE FROM facets WHERE doc_pk = ?", (pk,))
        run("DELETE FROM documents WHERE pk = ?", (pk,))
        return len(gone)

    def delete(self, doc_ids: Sequence[str]) -> BulkResult:
        items: list[BulkItem] = []
        with self._transaction() as run:
            change = self._meta(run, "change") + 1
            for doc_id in doc_ids:
                found = run("SELECT pk FROM documents WHERE id = ?", (doc_id,)).fetchone()
                if found is None:
                    items.append(BulkItem(doc_id, "not_found"))
                else:
                    items.append(BulkItem(doc_id, "deleted", self._remove(run, found[0], change)))
            if any(item.status == "deleted" for item in items):
                self._advance(run, change)
            else:
                change -= 1
        return BulkResult(tuple(items), change)

    def put_vectors(self, rows: IdArray, vectors: VectorArray, weights: Sequence[TermWeights] = ()) -> int:
        blobs = np.ascontiguousarray(vectors, dtype="<f2")
        with self._transaction() as run:
            change = self._meta(run, "change") + 1
            stored = 0
            for at, row in enumerate(rows.tolist()):
                sql = "UPDATE passages SET vector_change = ? WHERE row = ? AND vector_change IS NULL"
                if run(sql, (change, row)).rowcount:
                    vector = blobs[at].tobytes()
                    run("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)", (row, vector, blob_checksum(row, vector)))
                    if weights:
                        own = encode_terms(weights[at])
                        run("INSERT OR REPLACE INTO weights VALUES (?, ?, ?, ?)", (row, *own, blob_checksum(row, *own)))
                    stored += 1
            if stored:
                self._advance(run, change)
        return stored

    def forget_tombstones(self, before: int) -> None:
        """Purge the tombstones up to the change counter `before`, which every index should have applied.

        An index that has not applied them rebuilds itself. Raises WriterConflictError if another process is writing.
        """
        with self._peek_lock, translated():
            oldest = self._peek.execute("SELECT min(change) FROM tombstones").fetchone()[0]
            first = self._peek.execute("SELECT min(change) FROM moments").fetchone()[0]
        if (oldest is None or oldest > before) and first >= before:
            return
        with self._transaction() as run:
            run("DELETE FROM tombstones WHERE change <= ?", (before,))
            run("UPDATE meta SET value = max(value, ?) WHERE key = 'tombstone_floor'", (before,))
            run("DELETE FROM moments WHERE change < ?", (before,))


def _check_there(path: Path) -> None:
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        size = -1
    if size <= 0:
        raise CorruptionError(
            f"the passage store of the generation {path.parent.name} is {'empty' if size == 0 else 'gone'}",
            received=path.name,
            expected="a backup (`hyblink restore`), or another generation (`hyblink generations rollback`)",
        )


def _facets(pk: int, metadata: Metadata) -> list[tuple[int, str, str | None, float | None]]:
    return [(pk, key, text, number) for key, value in metadata.items() for text, number in facets_of(value)]
