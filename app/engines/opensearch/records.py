"""The record store on OpenSearch: one index, read by id in real time and refreshed before each search."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from urllib.parse import quote

from hyblink.app.core.errors import ConflictError, UnavailableError
from hyblink.app.core.ports.jobs import Record
from hyblink.app.engines.opensearch.client import Cluster, Json
from hyblink.app.engines.opensearch.templates import install_templates

_PAGE = 1000


class ClusterRecords:
    """The `Records` of one installation, which is named by the setting `opensearch.prefix`."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._index = f"{cluster.prefix}-records"
        self._ready = False

    def _at(self) -> str:
        """The name of the index. The first call creates it if needed."""
        if not self._ready:
            self._cluster.check_version()
            install_templates(self._cluster)
            body: Json = {"aliases": {self._index: {}}}
            self._cluster.ensure_index(f"{self._index}-000001", body, alias=self._index)
            self._ready = True
        return self._index

    def _found(self, kind: str, record_id: str) -> Json | None:
        return next(iter(self._cluster.get_many(self._at(), [_path(kind, record_id)])), None)

    def problems(self) -> list[str]:
        return []  # the cluster checks its segments itself

    def time(self) -> float:
        return self._cluster.time()

    def get(self, kind: str, record_id: str) -> Record | None:
        found = self._found(kind, record_id)
        return None if found is None else _record(found["_source"])

    def put(self, record: Record) -> Record:
        stored = Record(record.kind, record.id, record.body, record.state, record.collection, record.version + 1)
        options: Json = {"op_type": "create"}
        if record.version:
            found = self._found(record.kind, record.id)
            if found is None or found["_source"]["version"] != record.version:
                raise ConflictError(f"somebody else has written this {record.kind}", received=record.id)
            options = {"if_seq_no": found["_seq_no"], "if_primary_term": found["_primary_term"]}
        index, path = self._at(), _path(record.kind, record.id)
        source = {**_source(stored), "write": secrets.token_hex(8)}
        try:
            self._cluster.call(lambda: self._cluster.client.index(index=index, id=path, body=source, params=options))
        except ConflictError:
            # The conflict may be with this same write: the client retried it because the first answer was lost.
            found = self._found(record.kind, record.id)
            if found is None or found["_source"].get("write") != source["write"]:
                raise ConflictError(f"somebody else has written this {record.kind}", received=record.id) from None
        return stored

    def add(self, records: Sequence[Record]) -> None:
        at = self._at()
        read: dict[str, int] = {}
        for start in range(0, len(records), _PAGE):
            paths = [_path(record.kind, record.id) for record in records[start : start + _PAGE]]
            read |= {item["_id"]: item["_source"]["version"] for item in self._cluster.get_many(at, paths)}
        failed = self._cluster.bulk(
            (
                {"index": {"_index": at, "_id": _path(r.kind, r.id)}},
                _source(Record(r.kind, r.id, r.body, r.state, r.collection, read.get(_path(r.kind, r.id), 0) + 1)),
            )
            for r in records
        )
        if failed:
            raise UnavailableError(f"OpenSearch did not take {len(failed)} records", received=failed[0].reason)

    def remove(self, kind: str, ids: Sequence[str]) -> int:
        at = self._at()
        present = [item["_id"] for item in self._cluster.get_many(at, [_path(kind, item) for item in ids])]
        failed = self._cluster.bulk(({"delete": {"_index": at, "_id": path}}, None) for path in present)
        if failed:
            raise UnavailableError(f"OpenSearch did not delete {len(failed)} records", received=failed[0].reason)
        return len(present)

    def list(
        self,
        kind: str,
        *,
        states: Sequence[str] = (),
        collection: str | None = None,
        before: str | None = None,
        limit: int = 100,
    ) -> list[Record]:
        at = self._at()
        self._cluster.refresh(at)
        found: list[Record] = []
        while len(found) < limit:
            body: Json = {
                "query": _query(kind, states, collection),
                "sort": [{"id": "desc"}],
                "size": min(_PAGE, limit - len(found)),
            }
            if before is not None:
                body["search_after"] = [before]
            hits = self._cluster.search(at, body)["hits"]["hits"]
            found += [_record(hit["_source"]) for hit in hits]
            if len(hits) < body["size"]:
                break
            before = found[-1].id
        return found

    def count(self, kind: str, *, states: Sequence[str] = (), collection: str | None = None) -> int:
        at = self._at()
        self._cluster.refresh(at)
        body: Json = {"query": _query(kind, states, collection), "size": 0, "track_total_hits": True}
        return int(self._cluster.search(at, body)["hits"]["total"]["value"])

    def close(self) -> None:
        """Does nothing. The registry owns and closes the connections."""


def _path(kind: str, record_id: str) -> str:
    return f"{kind}/{quote(record_id, safe='')}"


def _query(kind: str, states: Sequence[str], collection: str | None) -> Json:
    clauses: list[Json] = [{"term": {"kind": kind}}]
    if states:
        clauses.append({"terms": {"state": list(states)}})
    if collection is not None:
        clauses.append({"term": {"collection": collection}})
    return {"bool": {"filter": clauses}}


def _source(record: Record) -> Json:
    return {
        "kind": record.kind,
        "id": record.id,
        "state": record.state,
        "collection": record.collection,
        "version": record.version,
        "body": dict(record.body),
    }


def _record(source: Json) -> Record:
    return Record(
        source["kind"], source["id"], source["body"], source["state"], source["collection"], source["version"]
    )
