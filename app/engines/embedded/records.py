"""The record store of the embedded engine: one SQLite file, shared by all processes of this machine."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import orjson

from hyblink.app.core.errors import ConflictError
from hyblink.app.core.ports.jobs import Record
from hyblink.app.engines.embedded.store.connection import translate

_SCHEMA = """
CREATE TABLE IF NOT EXISTS records (
  kind TEXT NOT NULL, id TEXT NOT NULL, version INTEGER NOT NULL, state TEXT NOT NULL, collection TEXT NOT NULL,
  body TEXT NOT NULL, PRIMARY KEY (kind, id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS records_by_state ON records (kind, state, id);
CREATE INDEX IF NOT EXISTS records_by_collection ON records (kind, collection, id);
"""
_COLUMNS = "kind, id, body, state, collection, version"


class SqliteRecords:
    """`Records` in an SQLite file, which is opened at the first use. Writes are durable when they return."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                if self._connection is None:
                    self._path.parent.mkdir(parents=True, exist_ok=True)
                    connection = sqlite3.connect(
                        self._path, isolation_level=None, check_same_thread=False, timeout=30.0
                    )
                    connection.execute("PRAGMA journal_mode = WAL")
                    connection.execute("PRAGMA synchronous = FULL")
                    connection.executescript(_SCHEMA)
                    self._connection = connection
                yield self._connection
            except sqlite3.Error as error:
                raise translate(error) from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._open() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise

    def get(self, kind: str, record_id: str) -> Record | None:
        with self._open() as connection:
            sql = f"SELECT {_COLUMNS} FROM records WHERE kind = ? AND id = ?"
            row = connection.execute(sql, (kind, record_id)).fetchone()
        return None if row is None else _record(row)

    def put(self, record: Record) -> Record:
        body = orjson.dumps(dict(record.body)).decode()
        values = (body, record.state, record.collection, record.version + 1)
        with self._transaction() as connection:
            if record.version:
                sql = """UPDATE records SET body = ?, state = ?, collection = ?, version = ?
                    WHERE kind = ? AND id = ? AND version = ?"""
                done = connection.execute(sql, (*values, record.kind, record.id, record.version)).rowcount
            else:
                sql = "INSERT OR IGNORE INTO records (body, state, collection, version, kind, id) VALUES (?,?,?,?,?,?)"
                done = connection.execute(sql, (*values, record.kind, record.id)).rowcount
        if not done:
            raise ConflictError(f"somebody else has written this {record.kind}", received=record.id)
        return Record(record.kind, record.id, record.body, record.state, record.collection, record.version + 1)

    def add(self, records: Sequence[Record]) -> None:
        sql = f"""INSERT INTO records ({_COLUMNS}) VALUES (?,?,?,?,?,1) ON CONFLICT (kind, id) DO UPDATE
            SET body = excluded.body, state = excluded.state, collection = excluded.collection, version = version + 1"""
        rows = [(r.kind, r.id, orjson.dumps(dict(r.body)).decode(), r.state, r.collection) for r in records]
        with self._transaction() as connection:
            connection.executemany(sql, rows)

    def remove(self, kind: str, ids: Sequence[str]) -> int:
        with self._transaction() as connection:
            sql = "DELETE FROM records WHERE kind = ? AND id IN (SELECT value FROM json_each(?))"
            return connection.execute(sql, (kind, orjson.dumps(list(ids)).decode())).rowcount

    def list(
        self,
        kind: str,
        *,
        states: Sequence[str] = (),
        collection: str | None = None,
        before: str | None = None,
        limit: int = 100,
    ) -> list[Record]:
        where, bound = _where(kind, states, collection)
        if before is not None:
            where, bound = f"{where} AND id < ?", [*bound, before]
        with self._open() as connection:
            sql = f"SELECT {_COLUMNS} FROM records WHERE {where} ORDER BY id DESC LIMIT ?"
            return [_record(row) for row in connection.execute(sql, [*bound, limit]).fetchall()]

    def count(self, kind: str, *, states: Sequence[str] = (), collection: str | None = None) -> int:
        where, bound = _where(kind, states, collection)
        with self._open() as connection:
            return int(connection.execute(f"SELECT count(*) FROM records WHERE {where}", bound).fetchone()[0])

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None


def _where(kind: str, states: Sequence[str], collection: str | None) -> tuple[str, list[Any]]:
    where, bound = "kind = ?", [kind]
    if states:
        where += " AND state IN (SELECT value FROM json_each(?))"
        bound.append(orjson.dumps(list(states)).decode())
    if collection is not None:
        where += " AND collection = ?"
        bound.append(collection)
    return where, bound


def _record(row: tuple[Any, ...]) -> Record:
    kind, record_id, body, state, collection, version = row
    return Record(kind, record_id, orjson.loads(body), state, collection, version)
