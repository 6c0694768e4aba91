"""Small JSON documents on the cluster, replaced only by whoever has seen the version that is replaced.

They are read in real time by their path, so that a write is seen by every process once it is acknowledged.
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
    """A document and the version it was read at."""

    value: Json
    seq_no: int
    primary_term: int


class StateDocuments:
    """Documents by path in the installation's catalog index."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.index = f"{cluster.prefix}-catalog"
        self._seen = threading.local()

    def ensure(self) -> None:
        """Make the index if it is not there."""
        self._cluster.ensure_index(self.index)

    @contextmanager
    def looked_up(self, paths: Sequence[str]) -> Iterator[None]:
        """Within it, this thread's `get` of these paths answers from one request made at the beginning."""
        self._seen.documents = self.get_many(paths)
        try:
            yield
        finally:
            self._seen.documents = None

    def get(self, path: str) -> Versioned | None:
        """The document as it is now."""
        seen: dict[str, Versioned | None] = getattr(self._seen, "documents", None) or {}
        return seen[path] if path in seen else self.get_many([path])[path]

    def get_many(self, paths: Sequence[str]) -> dict[str, Versioned | None]:
        """Several documents as they are now, None where there is none."""
        read = {one["_id"]: one for one in self._cluster.get_many(self.index, paths)}
        return {
            path: Versioned(one["_source"]["value"], one["_seq_no"], one["_primary_term"])
            if (one := read.get(path)) is not None
            else None
            for path in paths
        }

    def put(self, path: str, value: Json, *, after: Versioned | None = None, new: bool = False) -> Versioned:
        """Write a document over exactly the version `after`, where there is none yet (`new`), or whatever is there.

        Raises ConflictError where somebody else has written.
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
            # It may have been this very write, sent again because its answer was lost.
            found = self.get_many([path])[path]
            if found is None or found.value != value:
                raise
            return found
        return Versioned(value, answer["_seq_no"], answer["_primary_term"])

    def remove(self, *paths: str) -> None:
        """Delete documents that are there."""
        for path in paths:
            action = [{"delete": {"_index": self.index, "_id": path}}]
            answer = self._cluster.call(lambda action=action: self._cluster.client.bulk(body=action))  # type: ignore[misc]
            (item,) = answer["items"]
            if item["delete"]["status"] not in {200, 404}:
                raise UnavailableError(f"OpenSearch could not delete {path}", received=item["delete"].get("error"))

    def paths(self, prefix: str) -> list[str]:
        """The paths that begin so, ascending."""
        self._cluster.refresh(self.index)
        found: list[str] = []
        query = {"query": {"prefix": {"path": prefix}}, "_source": False, "sort": ["path"], "size": 1000}
        while True:
            hits = self._cluster.search(self.index, query)["hits"]["hits"]
            found += [hit["_id"] for hit in hits]
            if len(hits) < 1000:
                return found
            query["search_after"] = hits[-1]["sort"]
