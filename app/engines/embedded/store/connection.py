"""Connections to the store's SQLite file, and the translation of SQLite's errors."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from hyblink.app.core.errors import (
    CorruptionError,
    HyblinkError,
    StorageFullError,
    UnavailableError,
    WriterConflictError,
)
from hyblink.app.engines.disk import read_only, writable

_FULL_CODES = {sqlite3.SQLITE_FULL}

_CORRUPT_CODES = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def translate(error: sqlite3.Error) -> HyblinkError:
    """The hyblink error for an SQLite error: disk full, corruption, writer conflict, or unavailable."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_READONLY:
        return read_only()
    if code in _FULL_CODES or (code == sqlite3.SQLITE_IOERR and "disk" in str(error)):
        return StorageFullError(f"the write was undone, the old state stands: {error}")
    if code in _CORRUPT_CODES:
        return CorruptionError(f"the passage store is damaged: {error}")
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return WriterConflictError("the passage store is being written to", expected="one writer at a time")
    return UnavailableError(f"the passage store failed: {error}")


@contextmanager
def translated() -> Iterator[None]:
    """Re-raise SQLite errors as hyblink errors; see `translate`."""
    try:
        yield
    except sqlite3.Error as error:
        raise translate(error) from error


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """A write transaction: committed at its end, undone after an error, which is raised.

    On a full disk SQLite has undone it already.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
        raise


def connect(path: Path) -> sqlite3.Connection:
    """A connection in WAL mode with durable commits. The caller begins and ends transactions itself.

    In a folder that cannot be written the file is read as it is. Raises UnavailableError if writes wait in its log.
    """
    if path.exists() and not writable(path.parent):
        connection = _as_it_is(path)
    else:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30.0)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA cache_size = -65536")
    connection.execute("PRAGMA mmap_size = 1073741824")
    return connection


def _as_it_is(path: Path) -> sqlite3.Connection:
    log = path.with_name(f"{path.name}-wal")
    if log.exists() and log.stat().st_size:
        raise UnavailableError(
            f"the last writes of {path.name} are still in its log", received=log.name,
            expected="the folder opened once where it can be written",
        )  # fmt: skip
    address = f"file:{quote(str(path.resolve()))}?mode=ro&immutable=1"
    return sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False)
