"""The embedded store's schema and its migrations."""

from __future__ import annotations

import sqlite3

from hyblink.app.core.errors import CorruptionError
from hyblink.app.engines.embedded.store.connection import transaction

SCHEMA_VERSION = 7

_V1 = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE documents (
  pk INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, title TEXT NOT NULL, text TEXT NOT NULL, lang TEXT NOT NULL,
  metadata TEXT NOT NULL, content_hash TEXT NOT NULL
);
CREATE TABLE passages (
  row INTEGER PRIMARY KEY, doc_pk INTEGER NOT NULL REFERENCES documents (pk), ordinal INTEGER NOT NULL,
  start INTEGER NOT NULL, "end" INTEGER NOT NULL, change INTEGER NOT NULL, vector_change INTEGER
);
CREATE INDEX passages_by_document ON passages (doc_pk, ordinal);
CREATE INDEX passages_by_change ON passages (change);
CREATE INDEX passages_by_vector_change ON passages (vector_change) WHERE vector_change IS NOT NULL;
CREATE INDEX passages_unencoded ON passages (row) WHERE vector_change IS NULL;
CREATE TABLE terms (row INTEGER PRIMARY KEY, ids BLOB NOT NULL, weights BLOB);
CREATE TABLE vectors (row INTEGER PRIMARY KEY, vector BLOB NOT NULL);
CREATE TABLE facets (doc_pk INTEGER NOT NULL, key TEXT NOT NULL, text TEXT, number REAL);
CREATE INDEX facets_by_text ON facets (key, text, doc_pk);
CREATE INDEX facets_by_number ON facets (key, number, doc_pk) WHERE number IS NOT NULL;
CREATE INDEX facets_by_document ON facets (doc_pk);
CREATE TABLE tombstones (row INTEGER PRIMARY KEY, change INTEGER NOT NULL);
CREATE INDEX tombstones_by_change ON tombstones (change);
INSERT INTO meta VALUES ('change', 0), ('next_row', 1), ('next_pk', 1), ('tombstone_floor', 0);
"""

_V2 = """
CREATE TABLE progress (source TEXT PRIMARY KEY, position TEXT NOT NULL) WITHOUT ROWID;
"""

# A covering index: document ids by key without reading the pages that hold the texts.
_V3 = """
CREATE INDEX documents_ids ON documents (pk, id);
"""

# VDR weights. The table `terms` holds the bags of tokens.
_V4 = """
CREATE TABLE weights (row INTEGER PRIMARY KEY, ids BLOB NOT NULL, weights BLOB);
"""

# The change counter of a document's last write. A generation being rebuilt uses it to copy what changed meanwhile.
_V5 = """
ALTER TABLE documents ADD COLUMN change INTEGER NOT NULL DEFAULT 0;
CREATE INDEX documents_by_change ON documents (change, id);
"""

# The moment of each change, a digest over all changes up to it: it binds indexes to the history that they were made of.
# Checksums of rows, which SQLite has only of its structure. Rows of before have none.
_V6 = """
CREATE TABLE moments (change INTEGER PRIMARY KEY, moment TEXT NOT NULL);
INSERT INTO moments SELECT value, lower(hex(randomblob(16))) FROM meta WHERE key = 'change';
INSERT INTO meta SELECT 'unbound_until', value FROM meta WHERE key = 'change';
ALTER TABLE documents ADD COLUMN crc INTEGER;
ALTER TABLE passages ADD COLUMN crc INTEGER;
ALTER TABLE terms ADD COLUMN crc INTEGER;
ALTER TABLE vectors ADD COLUMN crc INTEGER;
ALTER TABLE weights ADD COLUMN crc INTEGER;
ALTER TABLE progress ADD COLUMN crc INTEGER;
"""

# The structure of documents, the name of the file that is indexed with one, and the section of each passage.
_V7 = """
ALTER TABLE documents ADD COLUMN sections TEXT NOT NULL DEFAULT '';
ALTER TABLE documents ADD COLUMN file_name TEXT NOT NULL DEFAULT '';
ALTER TABLE passages ADD COLUMN path TEXT NOT NULL DEFAULT '';
ALTER TABLE passages ADD COLUMN place TEXT NOT NULL DEFAULT '';
"""

NEWEST_MOMENT = "SELECT change, moment FROM moments ORDER BY change DESC LIMIT 1"

MIGRATIONS = (_V1, _V2, _V3, _V4, _V5, _V6, _V7)
"""SQL scripts. Script n upgrades a store from schema version n to n + 1. A released script must not be edited."""


def version(connection: sqlite3.Connection) -> int:
    """The store's schema version; 0 for an empty file."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def migrate(connection: sqlite3.Connection, migrations: tuple[str, ...] = MIGRATIONS) -> None:
    """Upgrade the store to the newest schema version in one transaction.

    Raises CorruptionError if a newer hyblink has written the store.
    """
    found = version(connection)
    if found > len(migrations):
        raise CorruptionError(
            "the store was written by a newer hyblink",
            received=f"schema version {found}",
            expected=f"at most {len(migrations)}",
        )
    if found == len(migrations):
        return
    with transaction(connection):
        for number in range(version(connection), len(migrations)):
            for statement in migrations[number].split(";"):
                if statement.strip():
                    connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {number + 1}")
