"""Small JSON documents on the cluster, written with optimistic locking (compare and set).

They are read in real time by path, so every process sees a write as soon as it is acknowledged.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from hyblink.app.core.errors import ConflictError, UnavailableError
from hyblink.app.engines.opensearch.client import Cluster, Json


@dataclass(frozen=True, slots=True)
class Versioned:
    """A document with the sequence number and primary term at which it was read, for optimistic locking."""

    value: Json
    seq_no: int
    primary_term: int


class StateDocuments:
    """The JSON documents of an installation's catalog index, by path."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.index = f"{cluster.prefix}-catalog"
        self._seen = threading.local()

    def time(self) -> float:
        """Seconds since 1970 by the cluster's clock."""
        return self._cluster.time()

    def ensure(self) -> None:
        """Create the catalog index if it does not exist."""
        self._cluster.ensure_index(self.index)

    @contextmanager
    def looked_up(self, paths: Sequence[str]) -> Iterator[None]:
        """A context manager that reads these paths in one request. Within it this thread's `get` of them is cached."""
        self._seen.documents = self.get_many(paths)
        try:
            yield
        finally:
            self._seen.documents = None

    def get(self, path: str) -> Versioned | None:
        """The current document with its version; None if there is none."""
        seen: dict[str, Versioned | None] = getattr(self._seen, "documents", None) or {}
        return seen[path] if path in seen else self.get_many([path])[path]

    def get_many(self, paths: Sequence[str]) -> dict[str, Versioned | None]:
        """Path → current document with its version, None if there is none."""
        read = {item["_id"]: item for item in self._cluster.get_many(self.index, paths)}
        return {
            path: Versioned(found["_source"]["value"], found["_seq_no"], found["_primary_term"])
            if (found := read.get(path)) is not None
            else None
            for path in paths
        }

    def put(self, path: str, value: Json, *, after: Versioned | None = None, new: bool = False) -> Versioned:
        """Write a document and return its new version.

        With `after` the stored version must be that one. With `new` there must be no document yet. Otherwise any
        document is overwritten. Raises ConflictError if another writer was faster.
        """
        options: Json = {"if_seq_no": after.seq_no, "if_primary_term": after.primary_term} if after else {}
        if new:
            options["op_type"] = "create"
        body = {"path": path, "value": value}
        try:
            answer = self._cluster.call(
                lambda: self._cluster.client.index(index=self.index, id=path, body=body, params=options)
            )
        except ConflictError:
            # The conflict may be with this same write: the client retried it because the first answer was lost.
            found = self.get_many([path])[path]
            if found is None or found.value != value:
                raise
            return found
        return Versioned(value, answer["_seq_no"], answer["_primary_term"])

    def remove(self, *paths: str) -> None:
        """Delete the documents that exist among these paths."""
        for path in paths:
            action = [{"delete": {"_index": self.index, "_id": path}}]
            answer = self._cluster.call(lambda action=action: self._cluster.client.bulk(body=action))  # type: ignore[misc]
            (item,) = answer["items"]
            if item["delete"]["status"] not in {200, 404}:
                raise UnavailableError(f"OpenSearch could not delete {path}", received=item["delete"].get("error"))

    def paths(self, prefix: str) -> list[str]:
        """All paths that begin with `prefix`, ascending."""
        self._cluster.refresh(self.index)
        found: list[str] = []
        query = {"query": {"prefix": {"path": prefix}}, "_source": False, "sort": ["path"], "size": 1000}
        while True:
            hits = self._cluster.search(self.index, query)["hits"]["hits"]
            found += [hit["_id"] for hit in hits]
            if len(hits) < 1000:
                return found
            query["search_after"] = hits[-1]["sort"]
