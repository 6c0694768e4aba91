"""The record store of the embedded engine: one SQLite file, shared by all processes of this machine."""

from __future__ import annotations

import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from hyblink.app.core.errors import ConflictError, CorruptionError
from hyblink.app.core.manifest import read_json, write_json
from hyblink.app.core.ports.jobs import Record
from hyblink.app.engines.disk import disk_errors, writable
from hyblink.app.engines.embedded.store.checksums import checksum
from hyblink.app.engines.embedded.store.connection import connect, transaction, translate

_SCHEMA = """
CREATE TABLE IF NOT EXISTS records (
  kind TEXT NOT NULL, id TEXT NOT NULL, version INTEGER NOT NULL, state TEXT NOT NULL, collection TEXT NOT NULL,
  body TEXT NOT NULL, crc INTEGER, PRIMARY KEY (kind, id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS installation (one INTEGER PRIMARY KEY CHECK (one = 1), id TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS records_by_state ON records (kind, state, id);
CREATE INDEX IF NOT EXISTS records_by_collection ON records (kind, collection, id);
"""
_COLUMNS = "kind, id, body, state, collection, version"
_MARKER = "installation.json"
"""Notes beside the file which records belong here: without keys an open door would open again."""


def _installation(marker: Path) -> str | None:
    """The id that is noted, or None if nothing is. Raises CorruptionError."""
    try:
        found = read_json(marker).get("records")
    except FileNotFoundError:
        return None
    if not isinstance(found, str):
        raise CorruptionError(f"{marker.name} is damaged", expected="a backup (`hyblink restore`)")
    return found


def _gone(path: Path, how: str) -> CorruptionError:
    return CorruptionError(
        f"the records (keys, jobs, judgements) are {how}", received=path.name,
        expected=f"a backup (`hyblink restore`); to begin anew without keys, delete {_MARKER}",
    )  # fmt: skip


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
                    self._connection = self._connected()
                yield self._connection
            except sqlite3.Error as error:
                raise translate(error) from error

    def _connected(self) -> sqlite3.Connection:
        folder = self._path.parent
        marker = folder / _MARKER
        known = _installation(marker)
        if not writable(folder):
            if not self._path.exists() and known is None:
                connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
                connection.executescript(_SCHEMA)
                connection.execute("PRAGMA query_only = ON")
                return connection
            connection = connect(self._path)
        else:
            if known is not None and not self._path.exists():
                raise _gone(self._path, "missing")
            with disk_errors():
                folder.mkdir(parents=True, exist_ok=True)
            connection = connect(self._path)
        try:
            self._check(connection, marker, known)
        except BaseException:
            connection.close()
            raise
        return connection

    def _check(self, connection: sqlite3.Connection, marker: Path, known: str | None) -> None:
        """Bring the schema up to date, and compare the installation's id with the one that is noted beside the file."""
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if known is not None and "installation" not in tables:
            raise _gone(self._path, "emptied, or of another installation")
        if not writable(self._path.parent) and "installation" not in tables:
            return  # of an earlier release
        if writable(self._path.parent):
            with transaction(connection):  # other processes may open it at the same time
                for statement in filter(str.strip, _SCHEMA.split(";")):
                    connection.execute(statement)
                if not any(row[1] == "crc" for row in connection.execute("PRAGMA table_info(records)")):
                    connection.execute("ALTER TABLE records ADD COLUMN crc INTEGER")
                connection.execute("INSERT OR IGNORE INTO installation VALUES (1, ?)", (known or secrets.token_hex(8),))
        (row,) = connection.execute("SELECT id FROM installation").fetchall() or [(None,)]
        if known is not None and row[0] != known:
            raise _gone(self._path, "of another installation")
        if known is None and row[0] is not None and writable(self._path.parent):
            with disk_errors():
                write_json(marker, {"records": row[0]})

    def problems(self) -> list[str]:
        """What is wrong with the file: SQLite's own checks, and records that do not match their checksums."""
        with self._open() as connection:
            found = [str(row[0]) for row in connection.execute("PRAGMA integrity_check") if row[0] != "ok"]
            if not any(row[1] == "crc" for row in connection.execute("PRAGMA table_info(records)")):
                return found  # of an earlier release, and it cannot be written
            rows = connection.execute(f"SELECT {_COLUMNS}, crc FROM records WHERE crc IS NOT NULL")
            wrong = sum(checksum(*values) != crc for *values, crc in rows)
        return found + [f"{wrong} records do not match their checksums"] * (wrong > 0)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._open() as connection, transaction(connection):
            yield connection

    def time(self) -> float:
        return time.time()  # all processes are on this machine

    def get(self, kind: str, record_id: str) -> Record | None:
        with self._open() as connection:
            sql = f"SELECT {_COLUMNS} FROM records WHERE kind = ? AND id = ?"
            row = connection.execute(sql, (kind, record_id)).fetchone()
        return None if row is None else _record(row)

    def put(self, record: Record) -> Record:
        body = orjson.dumps(dict(record.body)).decode()
        version = record.version + 1
        crc = checksum(record.kind, record.id, body, record.state, record.collection, version)
        values = (body, record.state, record.collection, version, crc)
        with self._transaction() as connection:
            if record.version:
                sql = """UPDATE records SET body = ?, state = ?, collection = ?, version = ?, crc = ?
                    WHERE kind = ? AND id = ? AND version = ?"""
                done = connection.execute(sql, (*values, record.kind, record.id, record.version)).rowcount
            else:
                columns = "body, state, collection, version, crc, kind, id"
                sql = f"INSERT OR IGNORE INTO records ({columns}) VALUES (?,?,?,?,?,?,?)"
                done = connection.execute(sql, (*values, record.kind, record.id)).rowcount
        if not done:
            raise ConflictError(f"somebody else has written this {record.kind}", received=record.id)
        return Record(record.kind, record.id, record.body, record.state, record.collection, record.version + 1)

    def add(self, records: Sequence[Record]) -> None:
        sql = f"""INSERT INTO records ({_COLUMNS}, crc) VALUES (?,?,?,?,?,?,?) ON CONFLICT (kind, id) DO UPDATE
            SET body = excluded.body, state = excluded.state, collection = excluded.collection,
            version = excluded.version, crc = excluded.crc"""
        with self._transaction() as connection:
            for item in records:
                there = connection.execute(
                    "SELECT version FROM records WHERE kind = ? AND id = ?", (item.kind, item.id)
                ).fetchone()
                body = orjson.dumps(dict(item.body)).decode()
                values = (item.kind, item.id, body, item.state, item.collection, there[0] + 1 if there else 1)
                connection.execute(sql, (*values, checksum(*values)))

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
