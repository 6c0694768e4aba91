"""A read-only snapshot of the SQLite store."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from hyblink.app.core.filters import Filter
from hyblink.app.core.ports.store import (
    ExportedDocument,
    PassageChange,
    is_of_another_history,
)
from hyblink.app.core.sections import decode_sections
from hyblink.app.core.selection import RowSelection
from hyblink.app.core.types.arrays import BoolArray, IdArray, TermBatch, VectorArray
from hyblink.app.core.types.documents import (
    DocId,
    Document,
    Metadata,
    Passage,
    PassageRow,
    StoreCounts,
    Tier,
    content_of,
)
from hyblink.app.engines.embedded.store import checksums, texts
from hyblink.app.engines.embedded.store.coding import (
    decode_path,
    decode_terms,
    decode_vectors,
    decode_weights,
)
from hyblink.app.engines.embedded.store.connection import connect, translated
from hyblink.app.engines.embedded.store.filters import condition_of
from hyblink.app.engines.embedded.store.schema import NEWEST_MOMENT

_BATCH = 4096
_COUNTERS = {
    "next_row": "SELECT max(row) FROM (SELECT row FROM passages UNION ALL SELECT row FROM tombstones)",
    "next_pk": "SELECT max(pk) FROM documents",
}


class RowOwners:
    """An in-memory map from rows to document keys. A row's document never changes, so all readers share the map."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._forget()

    def _forget(self) -> None:
        self._keys: IdArray = np.full(1024, -1, dtype=np.int64)
        self._next = 1
        self._change, self._moment = 0, ""

    def extend(self, reader: SqliteReader) -> None:
        """Read the rows added since the last call; all of them if the store was put back from a copy meanwhile."""
        with self._lock:
            if is_of_another_history(reader, self._change, self._moment):
                self._forget()
            if reader.change >= self._change:
                self._change, self._moment = reader.change, reader.moment
            (end,) = reader.query("SELECT value FROM meta WHERE key = 'next_row'", ())[0]
            if end <= self._next:
                return
            found = np.array(
                reader.query("SELECT row, doc_pk FROM passages WHERE row >= ?", (self._next,)), dtype=np.int64
            ).reshape(-1, 2)
            keys = self._keys
            if end > len(keys):
                keys = np.full(max(end, 2 * len(keys)), -1, dtype=np.int64)
                keys[: len(self._keys)] = self._keys
            keys[found[:, 0]] = found[:, 1]
            self._keys, self._next = keys, end

    def keys(self, rows: IdArray) -> IdArray:
        """The document key of each row, -1 for an unknown row."""
        keys = self._keys
        known = (rows > 0) & (rows < len(keys))
        return np.where(known, keys[np.where(known, rows, 0)], -1)


class SqliteReader:
    """The `StoreReader` of SQLite: a read transaction that stays open as long as this object lives."""

    def __init__(self, path: Path, owners: RowOwners) -> None:
        self._owners = owners
        with translated():
            self._connection = connect(path)
            self._lock = threading.RLock()
            self._connection.execute("BEGIN")
            self._change = int(self._one("SELECT value FROM meta WHERE key = 'change'"))
            (newest,) = self._all(NEWEST_MOMENT)
            self._moment = str(newest[1])
            owners.extend(self)

    @property
    def change(self) -> int:
        return self._change

    @property
    def moment(self) -> str:
        return self._moment

    def continues(self, change: int, moment: str) -> bool:
        if change == self._change:
            return moment == self._moment or (not moment and change <= self._unbound_until())
        known = self._one("SELECT moment FROM moments WHERE change = ?", (change,))
        return bool(known == moment if moment else change <= self._unbound_until())

    def _unbound_until(self) -> int:
        return int(self._one("SELECT value FROM meta WHERE key = 'unbound_until'"))

    def __del__(self) -> None:
        if hasattr(self, "_connection"):
            with suppress(sqlite3.Error):
                self._connection.close()

    def query(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        """The rows of an SQL query on this snapshot."""
        return self._all(sql, values)

    def _all(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        with self._lock, translated():
            return self._connection.execute(sql, values).fetchall()

    def _one(self, sql: str, values: Sequence[Any] = ()) -> Any:
        rows = self._all(sql, values)
        return rows[0][0] if rows else None

    def _in(self, sql: str, values: Sequence[Any]) -> Iterator[Any]:
        """The result rows of `sql`, in which `{}` becomes a subquery over `values`.

        The values are bound as one JSON parameter, so SQLite caches one statement for any number of them.
        """
        found = self._all(sql.format("SELECT value FROM json_each(?)"), (orjson.dumps(values).decode(),))
        return iter(found)

    def get_document(self, doc_id: str) -> Document | None:
        rows = self._all("SELECT id, title, text, lang, metadata, sections FROM documents WHERE id = ?", (doc_id,))
        if not rows:
            return None
        found, title, text, lang, metadata, sections = rows[0]
        return Document(DocId(found), text, title, lang, orjson.loads(metadata), decode_sections(sections))

    def _each(self, sql: str, values: Sequence[Any] = ()) -> Iterator[Any]:
        """The result rows one by one, so that only one is in memory. Other threads wait until the last one is read."""
        with self._lock, translated():
            yield from self._connection.execute(sql, values)

    def passages(self, rows: IdArray) -> dict[int, Passage]:
        sql = (
            f'SELECT p.row, p.doc_pk, p.start, p."end", d.id, d.title, {texts.OWN_TEXT}, p.ordinal, p.vector_change, '
            "p.path, p.place, d.file_name FROM passages p JOIN documents d ON d.pk = p.doc_pk WHERE p.row IN ({})"
        )
        found = list(self._in(sql, rows.tolist()))
        own = texts.own_texts(self._each, found)
        return {
            row: Passage(
                PassageRow(row), DocId(doc_id), ordinal, start, end, title, own[row], _tier(vector_change),
                decode_path(path), place, file_name,
            )
            for row, _, start, end, doc_id, title, _, ordinal, vector_change, path, place, file_name in found
        }  # fmt: skip

    def passage_lengths(self, rows: IdArray) -> IdArray:
        found = dict(self._in('SELECT row, "end" - start FROM passages WHERE row IN ({})', rows.tolist()))
        return np.array([found.get(row, 0) for row in rows.tolist()], dtype=np.int64)

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
        condition, values = condition_of(tree)
        sql = f"SELECT p.row FROM passages p WHERE p.doc_pk IN (SELECT d.pk FROM documents d WHERE {condition})"
        return RowSelection(np.sort(np.array([row for (row,) in self._all(sql, values)], dtype=np.int64)))

    def metadata(self, keys: IdArray) -> list[Metadata]:
        wanted = keys.tolist()
        found = dict(self._in("SELECT pk, metadata FROM documents WHERE pk IN ({})", wanted))
        return [orjson.loads(found[key]) for key in wanted]

    def metadata_of(self, doc_ids: Sequence[str]) -> dict[str, Metadata]:
        found = self._in("SELECT id, metadata FROM documents WHERE id IN ({})", list(doc_ids))
        return {doc_id: orjson.loads(metadata) for doc_id, metadata in found}

    def vectors(self, rows: IdArray) -> tuple[IdArray, VectorArray]:
        found = sorted(self._in("SELECT row, vector FROM vectors WHERE row IN ({})", rows.tolist()))
        return np.array([row for row, _ in found], dtype=np.int64), decode_vectors([blob for _, blob in found])

    def unencoded(self, limit: int, after: int = 0) -> IdArray:
        sql = "SELECT row FROM passages WHERE vector_change IS NULL AND row > ? ORDER BY row LIMIT ?"
        return np.array([row for (row,) in self._all(sql, (after, limit))], dtype=np.int64)

    def _pages(self, sql: str, change: int) -> Iterator[list[Any]]:
        """Batches of the rows of `sql`, which has the parameters (change, last row, limit) and orders by row."""
        last = 0
        while batch := self._all(sql, (change, last, _BATCH)):
            yield batch
            last = batch[-1][0]

    def texts_since(self, change: int) -> Iterator[list[PassageChange]]:
        sql = (
            f'SELECT p.row, p.doc_pk, p.start, p."end", d.id, d.title, {texts.OWN_TEXT}, p.change, p.path, d.file_name '
            "FROM passages p JOIN documents d ON d.pk = p.doc_pk "
            "WHERE p.change > ? AND p.row > ? ORDER BY p.row LIMIT ?"
        )
        last = 0
        while batch := self._all(sql, (change, last, _BATCH)):
            last = batch[-1][0]
            for part in texts.in_parts(batch):
                own = texts.own_texts(self._each, part)
                yield [
                    PassageChange(row, at, doc_id, content_of(title, decode_path(path), name, own[row]))
                    for row, _, _, _, doc_id, title, _, at, path, name in part
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
                decode_weights(weights, lengths),
            )

    def vectors_since(self, change: int) -> Iterator[tuple[IdArray, VectorArray]]:
        sql = (
            "SELECT p.row, v.vector FROM passages p JOIN vectors v ON v.row = p.row "
            "WHERE p.vector_change > ? AND p.row > ? ORDER BY p.row LIMIT ?"
        )
        for batch in self._pages(sql, change):
            yield (
                np.array([row for row, _ in batch], dtype=np.int64),
                decode_vectors([blob for _, blob in batch]),
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
        return [item for (item,) in self._all("SELECT id FROM documents WHERE change > ?", (since,))]

    def document_ids(self) -> Iterator[list[str]]:
        last = 0
        while batch := self._all("SELECT pk, id FROM documents WHERE pk > ? ORDER BY pk LIMIT ?", (last, _BATCH)):
            yield [row for _, row in batch]
            last = batch[-1][0]

    def export(self, only: Sequence[str] | None = None) -> Iterator[ExportedDocument]:
        if only is None:
            condition, bound = "", []
        else:
            condition = "AND d.id IN (SELECT value FROM json_each(?)) "
            bound = [orjson.dumps(list(only)).decode()]
        sql = (
            "SELECT d.pk, count(*) FROM documents d JOIN passages p ON p.doc_pk = d.pk "
            f"WHERE d.pk > ? {condition}GROUP BY d.pk ORDER BY d.pk LIMIT 512"
        )
        last = 0
        while counts := self._all(sql, (last, *bound)):
            begin = size = 0
            for at, (_, count) in enumerate(counts):  # documents of together at most _BATCH passages, or a single one
                if size and size + count > _BATCH:
                    yield from self._exported([key for key, _ in counts[begin:at]])
                    begin, size = at, 0
                size += count
            yield from self._exported([key for key, _ in counts[begin:]])
            last = counts[-1][0]

    def _exported(self, keys: Sequence[int]) -> Iterator[ExportedDocument]:
        rows = self._in(
            'SELECT p.doc_pk, p.start, p."end", t.ids, t.weights, v.vector, w.ids, w.weights FROM passages p '
            "JOIN terms t ON t.row = p.row LEFT JOIN vectors v ON v.row = p.row "
            "LEFT JOIN weights w ON w.row = p.row WHERE p.doc_pk IN ({}) ORDER BY p.doc_pk, p.ordinal",
            keys,
        )
        for key, own in groupby(rows, key=lambda row: row[0]):
            passages = list(own)
            ((doc_id, title, text, lang, metadata, content_hash, sections),) = self._all(
                "SELECT id, title, text, lang, metadata, content_hash, sections FROM documents WHERE pk = ?", (key,)
            )
            yield ExportedDocument(
                Document(DocId(doc_id), text, title, lang, orjson.loads(metadata), decode_sections(sections)),
                tuple((row[1], row[2]) for row in passages),
                tuple(decode_terms(row[3], row[4]) for row in passages),
                tuple(None if row[5] is None else decode_vectors([row[5]])[0] for row in passages),
                content_hash,
                tuple(None if row[6] is None else decode_terms(row[6], row[7]) for row in passages),
            )

    def integrity(self) -> list[str]:
        """Integrity problems as messages: SQLite's own, rows without their counterpart, rows that were changed."""
        problems = [str(row[0]) for row in self._all("PRAGMA integrity_check") if row[0] != "ok"]
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
        problems += checksums.problems(self._each)
        newest = self._one("SELECT max(change) FROM moments")
        if newest != self._change:
            problems.append(f"the change counter is {self._change}, the newest change is {newest}")
        for key, sql in _COUNTERS.items():
            counter, used = self._one("SELECT value FROM meta WHERE key = ?", (key,)), self._one(sql)
            if used is not None and counter <= used:
                problems.append(f"the counter {key} is {counter}, and {used} is taken")
        return problems


def _tier(vector_change: int | None) -> Tier:
    return Tier.INSTANT if vector_change is None else Tier.FULL
