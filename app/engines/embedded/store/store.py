"""The embedded passage store: one SQLite file in WAL mode, one writer, many readers.

A row number is never used twice: a changed document gets new rows and its old ones become tombstones, so an index
that applies the same change twice ends where it would after once.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import groupby
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import orjson

from hyblink.app.core.errors import (
    CorruptionError,
    HyblinkError,
    StorageFullError,
    UnavailableError,
    WriterConflictError,
)
from hyblink.app.core.filters import And, Exists, Filter, Not, Or, Range, Terms, facets_of
from hyblink.app.core.ports.store import (
    ExportedDocument,
    PassageChange,
    PreparedDocument,
    SourceProgress,
    check_progress,
)
from hyblink.app.core.selection import RowSelection
from hyblink.app.core.types.arrays import BoolArray, IdArray, ScoreArray, TermBatch, TermWeights, VectorArray
from hyblink.app.core.types.documents import (
    BulkItem,
    BulkResult,
    DocId,
    Document,
    Metadata,
    MetaScalar,
    Passage,
    PassageRow,
    StoreCounts,
    Tier,
)
from hyblink.app.engines.embedded.store.schema import migrate

_BATCH = 4096
_MAX_VARIABLES = 30_000
_FULL_CODES = {sqlite3.SQLITE_FULL}
_CORRUPT_CODES = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def translate(error: sqlite3.Error) -> HyblinkError:
    """The hyblink error that an SQLite error means."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in _FULL_CODES or (code == sqlite3.SQLITE_IOERR and "disk" in str(error)):
        return StorageFullError(f"the write was undone, the old state stands: {error}")
    if code in _CORRUPT_CODES:
        return CorruptionError(f"the passage store is damaged: {error}")
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return WriterConflictError("the passage store is being written to", expected="one writer at a time")
    return UnavailableError(f"the passage store failed: {error}")


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise translate(error) from error


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30.0)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA cache_size = -65536")
    connection.execute("PRAGMA mmap_size = 1073741824")
    return connection


def _decode_terms(ids: bytes, weights: bytes | None) -> TermWeights:
    decoded = np.frombuffer(ids, dtype="<i4")
    if weights is None:
        return TermWeights(decoded, np.ones(len(decoded), dtype=np.float32))
    return TermWeights(decoded, np.frombuffer(weights, dtype="<f4"))


def _decode_weights(blobs: Sequence[bytes | None], lengths: Sequence[int]) -> ScoreArray:
    """Weights of several rows, one after another; empty where all are 1."""
    if not any(blobs):
        return np.zeros(0, dtype=np.float32)
    one = np.float32(1.0).tobytes()
    filled = [one * length if blob is None else blob for blob, length in zip(blobs, lengths, strict=True)]
    return np.frombuffer(b"".join(filled), dtype="<f4")


def _encode_terms(terms: TermWeights) -> tuple[bytes, bytes | None]:
    ids = terms.ids.astype("<i4").tobytes()
    return ids, None if bool((terms.weights == 1.0).all()) else terms.weights.astype("<f4").tobytes()


def _decode_vectors(blobs: Sequence[bytes]) -> VectorArray:
    if not blobs:
        return np.zeros((0, 0), dtype=np.float32)
    return np.frombuffer(b"".join(blobs), dtype="<f2").reshape(len(blobs), -1).astype(np.float32)


def _chunks(values: Sequence[Any], size: int = _MAX_VARIABLES) -> Iterator[Sequence[Any]]:
    for at in range(0, len(values), size):
        yield values[at : at + size]


def _marks(count: int) -> str:
    return ",".join("?" * count)


class _Owners:
    """Which document each row belongs to, in memory. That never changes, so all readers share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._keys: IdArray = np.full(1024, -1, dtype=np.int64)
        self._next = 1

    def extend(self, query: Callable[[str, Sequence[Any]], list[Any]]) -> None:
        """Read what has been added since the last time."""
        with self._lock:
            (end,) = query("SELECT value FROM meta WHERE key = 'next_row'", ())[0]
            if end <= self._next:
                return
            found = np.array(
                query("SELECT row, doc_pk FROM passages WHERE row >= ?", (self._next,)), dtype=np.int64
            ).reshape(-1, 2)
            keys = self._keys
            if end > len(keys):
                keys = np.full(max(end, 2 * len(keys)), -1, dtype=np.int64)
                keys[: len(self._keys)] = self._keys
            keys[found[:, 0]] = found[:, 1]
            self._keys, self._next = keys, end

    def keys(self, rows: IdArray) -> IdArray:
        keys = self._keys
        known = (rows > 0) & (rows < len(keys))
        return np.where(known, keys[np.where(known, rows, 0)], -1)


class SqliteReader:
    """The store at one moment: a read transaction that stays open as long as this object lives."""

    def __init__(self, path: Path, owners: _Owners) -> None:
        self._owners = owners
        with _translated():
            self._connection = _connect(path)
            self._lock = threading.RLock()
            self._connection.execute("BEGIN")
            self._change = int(self._one("SELECT value FROM meta WHERE key = 'change'"))
            owners.extend(self._all)

    @property
    def change(self) -> int:
        return self._change

    def __del__(self) -> None:
        if hasattr(self, "_connection"):
            with suppress(sqlite3.Error):
                self._connection.close()

    def _all(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        with self._lock, _translated():
            return self._connection.execute(sql, values).fetchall()

    def _one(self, sql: str, values: Sequence[Any] = ()) -> Any:
        rows = self._all(sql, values)
        return rows[0][0] if rows else None

    def _in(self, sql: str, values: Sequence[Any]) -> Iterator[Any]:
        """Rows of `sql`, whose `{}` becomes all the values. The statement is the same for any number of them."""
        found = self._all(sql.format("SELECT value FROM json_each(?)"), (orjson.dumps(values).decode(),))
        return iter(found)

    def get_document(self, doc_id: str) -> Document | None:
        rows = self._all("SELECT id, title, text, lang, metadata FROM documents WHERE id = ?", (doc_id,))
        if not rows:
            return None
        found, title, text, lang, metadata = rows[0]
        return Document(DocId(found), text, title, lang, orjson.loads(metadata))

    def passages(self, rows: IdArray) -> dict[int, Passage]:
        sql = (
            'SELECT p.row, d.id, p.ordinal, p.start, p."end", d.title, d.text, p.vector_change '
            "FROM passages p JOIN documents d ON d.pk = p.doc_pk WHERE p.row IN ({})"
        )
        return {
            row: Passage(PassageRow(row), DocId(doc), ordinal, start, end, title, text[start:end], _tier(vector_change))
            for row, doc, ordinal, start, end, title, text, vector_change in self._in(sql, rows.tolist())
        }

    def document_keys(self, rows: IdArray) -> IdArray:
        return self._owners.keys(rows)

    def doc_ids(self, keys: IdArray) -> list[str]:
        wanted = keys.tolist()
        found = dict(self._in("SELECT pk, id FROM documents INDEXED BY documents_ids WHERE pk IN ({})", wanted))
        return [found[key] for key in wanted]

    def document_rows(self, doc_id: str) -> IdArray:
        sql = "SELECT p.row FROM passages p JOIN documents d ON d.pk = p.doc_pk WHERE d.id = ? ORDER BY p.ordinal"
        return np.array([row for (row,) in self._all(sql, (doc_id,))], dtype=np.int64)

    def select(self, tree: Filter) -> RowSelection:
        condition, values = _condition(tree)
        sql = f"SELECT p.row FROM passages p WHERE p.doc_pk IN (SELECT d.pk FROM documents d WHERE {condition})"
        return RowSelection(np.sort(np.array([row for (row,) in self._all(sql, values)], dtype=np.int64)))

    def metadata(self, keys: IdArray) -> list[Metadata]:
        wanted = keys.tolist()
        found = dict(self._in("SELECT pk, metadata FROM documents WHERE pk IN ({})", wanted))
        return [orjson.loads(found[key]) for key in wanted]

    def vectors(self, rows: IdArray) -> tuple[IdArray, VectorArray]:
        found = sorted(self._in("SELECT row, vector FROM vectors WHERE row IN ({})", rows.tolist()))
        return np.array([row for row, _ in found], dtype=np.int64), _decode_vectors([blob for _, blob in found])

    def unencoded(self, limit: int, after: int = 0) -> IdArray:
        sql = "SELECT row FROM passages WHERE vector_change IS NULL AND row > ? ORDER BY row LIMIT ?"
        return np.array([row for (row,) in self._all(sql, (after, limit))], dtype=np.int64)

    def _pages(self, sql: str, change: int) -> Iterator[list[Any]]:
        """Batches of `sql`, which takes (change, last row, limit) and orders by row."""
        last = 0
        while batch := self._all(sql, (change, last, _BATCH)):
            yield batch
            last = batch[-1][0]

    def texts_since(self, change: int) -> Iterator[list[PassageChange]]:
        sql = (
            'SELECT p.row, p.change, d.id, p.start, p."end", d.title, d.text FROM passages p '
            "JOIN documents d ON d.pk = p.doc_pk WHERE p.change > ? AND p.row > ? ORDER BY p.row LIMIT ?"
        )
        for batch in self._pages(sql, change):
            yield [
                PassageChange(row, at, doc_id, f"{title}\n{text[start:end]}" if title else text[start:end])
                for row, at, doc_id, start, end, title, text in batch
            ]

    def encoded(self, rows: IdArray) -> BoolArray:
        sql = "SELECT row FROM passages WHERE row IN ({}) AND vector_change IS NOT NULL"
        return np.isin(rows, np.array([row for (row,) in self._in(sql, rows.tolist())], dtype=np.int64))

    def terms_since(self, change: int) -> Iterator[TermBatch]:
        return self._weights_of("terms", "change", change)

    def weights_since(self, change: int) -> Iterator[TermBatch]:
        return self._weights_of("weights", "vector_change", change)

    def _weights_of(self, table: str, counter: str, change: int) -> Iterator[TermBatch]:
        sql = (
            f"SELECT p.row, t.ids, t.weights FROM passages p JOIN {table} t ON t.row = p.row "
            f"WHERE p.{counter} > ? AND p.row > ? ORDER BY p.row LIMIT ?"
        )
        for batch in self._pages(sql, change):
            rows, ids, weights = zip(*batch, strict=True)
            lengths = [len(some) // 4 for some in ids]
            yield TermBatch(
                np.array(rows, dtype=np.int64),
                np.cumsum([0, *lengths], dtype=np.int64),
                np.frombuffer(b"".join(ids), dtype="<i4"),
                _decode_weights(weights, lengths),
            )

    def vectors_since(self, change: int) -> Iterator[tuple[IdArray, VectorArray]]:
        sql = (
            "SELECT p.row, v.vector FROM passages p JOIN vectors v ON v.row = p.row "
            "WHERE p.vector_change > ? AND p.row > ? ORDER BY p.row LIMIT ?"
        )
        for batch in self._pages(sql, change):
            yield (
                np.array([row for row, _ in batch], dtype=np.int64),
                _decode_vectors([blob for _, blob in batch]),
            )

    def removed_since(self, change: int) -> IdArray | None:
        if change < int(self._one("SELECT value FROM meta WHERE key = 'tombstone_floor'")):
            return None
        rows = self._all("SELECT row FROM tombstones WHERE change > ? ORDER BY row", (change,))
        return np.array([row for (row,) in rows], dtype=np.int64)

    def live_rows(self, *, encoded: bool = False) -> IdArray:
        condition = "WHERE vector_change IS NOT NULL" if encoded else ""
        rows = self._all(f"SELECT row FROM passages {condition} ORDER BY row")
        return np.array([row for (row,) in rows], dtype=np.int64)

    def counts(self) -> StoreCounts:
        documents = self._one("SELECT count(*) FROM documents")
        passages = self._one("SELECT count(*) FROM passages")
        waiting = self._one("SELECT count(*) FROM passages WHERE vector_change IS NULL")
        return StoreCounts(documents, passages, passages - waiting, self._change)

    def changed_documents(self, since: int) -> list[str]:
        return [one for (one,) in self._all("SELECT id FROM documents WHERE change > ?", (since,))]

    def document_ids(self) -> Iterator[list[str]]:
        last = 0
        while batch := self._all("SELECT pk, id FROM documents WHERE pk > ? ORDER BY pk LIMIT ?", (last, _BATCH)):
            yield [one for _, one in batch]
            last = batch[-1][0]

    def export(self, only: Sequence[str] | None = None) -> Iterator[ExportedDocument]:
        if only is None:
            yield from self._export("", [])
        else:
            yield from self._export(
                "AND d.id IN (SELECT value FROM json_each(?)) ", [orjson.dumps(list(only)).decode()]
            )

    def _export(self, condition: str, bound: list[str]) -> Iterator[ExportedDocument]:
        sql = (
            'SELECT d.pk, d.id, d.title, d.text, d.lang, d.metadata, d.content_hash, p.start, p."end", t.ids, '
            "t.weights, v.vector, w.ids, w.weights FROM documents d JOIN passages p ON p.doc_pk = d.pk "
            "JOIN terms t ON t.row = p.row LEFT JOIN vectors v ON v.row = p.row "
            "LEFT JOIN weights w ON w.row = p.row "
            f"WHERE d.pk > ? AND d.pk <= ? {condition}ORDER BY d.pk, p.ordinal"
        )
        # Some documents are read at once, all of them part by part.
        last, step = 0, (2**62 if bound else 512)
        newest = int(self._one("SELECT coalesce(max(pk), 0) FROM documents"))
        while last < newest:
            for _, group in groupby(self._all(sql, (last, last + step, *bound)), key=lambda row: row[0]):
                rows = list(group)
                _, doc_id, title, text, lang, metadata, content_hash = rows[0][:7]
                yield ExportedDocument(
                    Document(DocId(doc_id), text, title, lang, orjson.loads(metadata)),
                    tuple((row[7], row[8]) for row in rows),
                    tuple(_decode_terms(row[9], row[10]) for row in rows),
                    tuple(None if row[11] is None else _decode_vectors([row[11]])[0] for row in rows),
                    content_hash,
                    tuple(None if row[12] is None else _decode_terms(row[12], row[13]) for row in rows),
                )
            last += step

    def integrity(self) -> list[str]:
        """SQLite's own check, and ours: passages without document, terms or vectors without passage."""
        problems = [str(row[0]) for row in self._all("PRAGMA quick_check") if row[0] != "ok"]
        orphans = {
            "passages without a document": "SELECT count(*) FROM passages WHERE doc_pk NOT IN "
            "(SELECT pk FROM documents)",
            "documents without passages": "SELECT count(*) FROM documents WHERE pk NOT IN "
            "(SELECT doc_pk FROM passages)",
            "passages without term weights": "SELECT count(*) FROM passages WHERE row NOT IN (SELECT row FROM terms)",
            "term weights without a passage": "SELECT count(*) FROM terms WHERE row NOT IN (SELECT row FROM passages)",
            "vectors without a passage": "SELECT count(*) FROM vectors WHERE row NOT IN (SELECT row FROM passages)",
            "VDR weights without a passage": "SELECT count(*) FROM weights WHERE row NOT IN (SELECT row FROM passages)",
            "encoded passages without a vector": "SELECT count(*) FROM passages WHERE vector_change IS NOT NULL "
            "AND row NOT IN (SELECT row FROM vectors)",
            "tombstones of living passages": "SELECT count(*) FROM tombstones WHERE row IN (SELECT row FROM passages)",
        }
        problems += [f"{count} {what}" for what, sql in orphans.items() if (count := self._one(sql))]
        return problems


def _tier(vector_change: int | None) -> Tier:
    return Tier.INSTANT if vector_change is None else Tier.FULL


def _condition(tree: Filter) -> tuple[str, list[Any]]:
    """An SQL condition on documents `d` that says what `app.core.filters.matches` says."""

    def facet(condition: str, values: list[Any]) -> tuple[str, list[Any]]:
        return f"d.pk IN (SELECT f.doc_pk FROM facets f WHERE {condition})", values

    match tree:
        case Terms(key, values):
            texts = [_text(value) for value in values if isinstance(value, str | bool)]
            numbers = [float(value) for value in values if not isinstance(value, str | bool)]
            parts = []
            if texts:
                parts.append(f"f.text IN (SELECT value FROM json_each({'?'}))")
            if numbers:
                parts.append("f.text IS NULL AND f.number IN (SELECT value FROM json_each(?))")
            bound = [orjson.dumps(some).decode() for some in (texts, numbers) if some]
            return facet(f"f.key = ? AND ({' OR '.join(parts)})", [key, *bound])
        case Range(key, low, high, low_inclusive, high_inclusive):
            parts, bounds = ["f.key = ?", "f.number IS NOT NULL"], []
            if low is not None:
                parts.append(f"f.number {'>=' if low_inclusive else '>'} ?")
                bounds.append(low)
            if high is not None:
                parts.append(f"f.number {'<=' if high_inclusive else '<'} ?")
                bounds.append(high)
            return facet(" AND ".join(parts), [key, *bounds])
        case Exists(key):
            return facet("f.key = ?", [key])
        case And(clauses) | Or(clauses):
            compiled = [_condition(clause) for clause in clauses]
            joint = " AND " if isinstance(tree, And) else " OR "
            return "(" + joint.join(sql for sql, _ in compiled) + ")", [v for _, values in compiled for v in values]
        case Not(clause):
            sql, inner = _condition(clause)
            return f"NOT {sql}", inner


def _text(value: MetaScalar) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


class SqliteStore:
    """The writing side of the store. One process writes at a time; it holds the file lock while it does."""

    def __init__(self, path: Path, *, writer_wait_s: float = 10.0) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.after_change: Callable[[], None] = lambda: None
        """Called after each transaction that was committed."""
        self._owners = _Owners()
        self._wait = writer_wait_s
        self._mutex = threading.RLock()
        self._file_lock = filelock.FileLock(path.with_suffix(".writer.lock"), thread_local=False)
        self._owner_file = path.with_suffix(".writer.pid")
        with _translated():
            self._connection = _connect(path)
            migrate(self._connection)
            self._peek = _connect(path)  # a transaction in progress must not hold up whoever only looks
            self._peek_lock = threading.Lock()

    def close(self) -> None:
        """Close the store's own connections; readers stay as they are."""
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
        with self._peek_lock, _translated():
            return int(self._peek.execute("SELECT value FROM meta WHERE key = 'change'").fetchone()[0])

    @contextmanager
    def writer(self) -> Iterator[None]:
        """Hold the writer lock; threads of one process take turns, another process is refused."""
        if not self._mutex.acquire(timeout=self._wait):
            raise WriterConflictError("another thread is writing to this collection", expected="one writer at a time")
        try:
            try:
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
        with self.writer(), _translated():
            run = self._connection.execute
            run("BEGIN IMMEDIATE")
            try:
                yield run
                run("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    with suppress(sqlite3.Error):
                        run("ROLLBACK")
                raise
        self.after_change()

    @staticmethod
    def _meta(run: Callable[..., sqlite3.Cursor], key: str) -> int:
        return int(run("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()[0])

    def progress(self, source: str) -> str | None:
        with self._peek_lock, _translated():
            row = self._peek.execute("SELECT position FROM progress WHERE source = ?", (source,)).fetchone()
        return row[0] if row else None

    def sources(self) -> dict[str, str]:
        with self._peek_lock, _translated():
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
            prepared = [one for one in documents if isinstance(one, PreparedDocument)]
            known: dict[str, tuple[int, str, str]] = {}
            for chunk in _chunks([one.document.id for one in prepared]):
                sql = f"SELECT id, pk, content_hash, metadata FROM documents WHERE id IN ({_marks(len(chunk))})"
                known |= {doc: (pk, stored, metadata) for doc, pk, stored, metadata in run(sql, chunk)}
            new_documents, new_passages, new_terms, new_facets = [], [], [], []
            touched = False
            for one in documents:
                if isinstance(one, BulkItem):
                    items.append(one)
                    continue
                document = one.document
                metadata = orjson.dumps(dict(document.metadata), option=orjson.OPT_SORT_KEYS).decode()
                old = known.get(document.id)
                if old and old[1] == one.content_hash:
                    if old[2] == metadata:
                        items.append(BulkItem(document.id, "unchanged", len(one.windows)))
                        continue
                    run("UPDATE documents SET metadata = ?, change = ? WHERE pk = ?", (metadata, change, old[0]))
                    run("DELETE FROM facets WHERE doc_pk = ?", (old[0],))
                    new_facets += _facets(old[0], document.metadata)
                    items.append(BulkItem(document.id, "updated", len(one.windows)))
                    touched = True
                    continue
                if old:
                    self._remove(run, old[0], change)
                touched = True
                pk = next_pk
                next_pk += 1
                new_documents.append(
                    (
                        pk,
                        document.id,
                        document.title,
                        document.text,
                        document.lang,
                        metadata,
                        one.content_hash,
                        change,
                    )
                )
                for ordinal, ((start, end), bag) in enumerate(zip(one.windows, one.bags, strict=True)):
                    new_passages.append((next_row, pk, ordinal, start, end, change))
                    new_terms.append((next_row, *_encode_terms(bag)))
                    next_row += 1
                new_facets += _facets(pk, document.metadata)
                items.append(BulkItem(document.id, "updated" if old else "created", len(one.windows)))
            many = self._connection.executemany
            many("INSERT INTO documents VALUES (?,?,?,?,?,?,?,?)", new_documents)
            many(
                'INSERT INTO passages (row, doc_pk, ordinal, start, "end", change) VALUES (?,?,?,?,?,?)',
                new_passages,
            )
            many("INSERT INTO terms VALUES (?,?,?)", new_terms)
            many("INSERT INTO facets VALUES (?,?,?,?)", new_facets)
            run("UPDATE meta SET value = ? WHERE key = 'next_row'", (next_row,))
            run("UPDATE meta SET value = ? WHERE key = 'next_pk'", (next_pk,))
            if progress:
                run("INSERT OR REPLACE INTO progress VALUES (?, ?)", (progress.source, progress.position))
            if touched:
                run("UPDATE meta SET value = ? WHERE key = 'change'", (change,))
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
                run("UPDATE meta SET value = ? WHERE key = 'change'", (change,))
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
                    run("INSERT OR REPLACE INTO vectors VALUES (?, ?)", (row, blobs[at].tobytes()))
                    if weights:
                        run("INSERT OR REPLACE INTO weights VALUES (?, ?, ?)", (row, *_encode_terms(weights[at])))
                    stored += 1
            if stored:
                run("UPDATE meta SET value = ? WHERE key = 'change'", (change,))
        return stored

    def forget_tombstones(self, before: int) -> None:
        """Drop tombstones up to a change that every index has applied; an index left behind it rebuilds itself."""
        with self._transaction() as run:
            run("DELETE FROM tombstones WHERE change <= ?", (before,))
            run("UPDATE meta SET value = max(value, ?) WHERE key = 'tombstone_floor'", (before,))


def _facets(pk: int, metadata: Metadata) -> list[tuple[int, str, str | None, float | None]]:
    return [(pk, key, text, number) for key, value in metadata.items() for text, number in facets_of(value)]
