"""Snapshots of an installation on a cluster, and the way back.

The catalog is in a snapshot of its own that is taken first: its change counters say what of the other indexes counts.
What was written after it is taken back by the next writer, as after a crash.
"""

from __future__ import annotations

import secrets
import time
from typing import Any

from hyblink.app.core.errors import ConflictError, InvalidInputError, NotFoundError, UnavailableError
from hyblink.app.engines.opensearch.client import Cluster, Json
from hyblink.app.engines.opensearch.state import StateDocuments

REPOSITORY = "hyblink-backups"
_LONGEST_S = 3600


def _indices(cluster: Cluster, *, catalog: bool = True) -> str:
    """The indexes of this installation; not those of one whose prefix only begins like it."""
    kinds = [*(["catalog"] if catalog else []), "records*", "passages-*", "documents-*"]
    return ",".join(f"{cluster.prefix}-{kind}" for kind in kinds)


def take_snapshots(cluster: Cluster, repository: str | None) -> Json:
    """Take the two snapshots of an installation; return where they are, for `put_back`.

    `repository` is a snapshot repository of the cluster. None makes one in a folder that the nodes name as `path.repo`.
    Raises NotFoundError for an unknown repository, InvalidInputError if there is none and none can be made.
    """
    name = _repository(cluster, repository)
    stamp = f"{cluster.prefix}-{time.strftime('%Y%m%dt%H%M%S', time.gmtime())}-{secrets.token_hex(2)}"
    catalog = f"{cluster.prefix}-catalog"
    return {
        "repository": name,
        "prefix": cluster.prefix,
        "catalog": _snapshot(cluster, name, f"{stamp}-catalog", catalog),
        "data": _snapshot(cluster, name, f"{stamp}-data", _indices(cluster, catalog=False)),
    }


def _repository(cluster: Cluster, asked: str | None) -> str:
    known: Json = cluster.call(cluster.client.snapshot.get_repository)
    if asked is not None:
        if asked not in known:
            raise NotFoundError("no such snapshot repository", received=asked, expected=", ".join(known) or "none yet")
        return asked
    if REPOSITORY in known:
        return REPOSITORY
    nodes: Json = cluster.call(lambda: cluster.client.nodes.info(metric="settings"))
    folders = {_first_folder(node["settings"]) for node in nodes["nodes"].values()}
    if len(folders) != 1 or None in folders:
        raise InvalidInputError(
            "the cluster has no folder for snapshots",
            expected="a repository that you have registered (--repository), or path.repo of all nodes (opensearch.yml)",
        )
    body = {"type": "fs", "settings": {"location": f"{folders.pop()}/{REPOSITORY}"}}
    cluster.call(lambda: cluster.client.snapshot.create_repository(repository=REPOSITORY, body=body))
    return REPOSITORY


def _first_folder(settings: Json) -> str | None:
    found: Any = settings.get("path", {}).get("repo")
    return found[0] if isinstance(found, list) and found else found or None


def _snapshot(cluster: Cluster, repository: str, name: str, indices: str) -> str:
    body = {"indices": indices, "include_global_state": False, "ignore_unavailable": True}
    options = {"wait_for_completion": "true"}
    made = cluster.call(
        lambda: cluster.client.snapshot.create(
            repository=repository, snapshot=name, body=body, params={**options, "request_timeout": _LONGEST_S}
        )
    )["snapshot"]
    if made["state"] != "SUCCESS":
        raise UnavailableError("the snapshot is not whole", received=f"{name}: {made['state']}")
    return name


def put_back(cluster: Cluster, told: Json, *, replace: bool) -> None:
    """Restore an installation from its two snapshots. Raises ConflictError if it exists, unless `replace` deletes it.

    Each store gets a new identity, so that indexes that were derived from the lost one are made anew.
    """
    if told.get("prefix") != cluster.prefix:
        raise InvalidInputError(
            "the backup is of another installation", received=told.get("prefix"), expected=f"prefix {cluster.prefix}"
        )
    there: Json = cluster.call(
        lambda: cluster.client.indices.get(index=_indices(cluster), params={"ignore_unavailable": "true"})
    )
    if there and not replace:
        raise ConflictError(
            "the installation exists",
            received=", ".join(sorted(there)[:5]),
            expected="--replace, which deletes it first",
        )
    for index in there:
        cluster.delete_index(index)
    for part, indices in (("data", _indices(cluster, catalog=False)), ("catalog", f"{cluster.prefix}-catalog")):
        body = {"indices": indices, "include_global_state": False, "include_aliases": True}
        answer = cluster.call(
            lambda part=part, body=body: cluster.client.snapshot.restore(  # type: ignore[misc]
                repository=told["repository"],
                snapshot=told[part],
                body=body,
                params={"wait_for_completion": "true", "request_timeout": _LONGEST_S},
            )
        )
        failed = answer["snapshot"]["shards"]["failed"]
        if failed:
            raise UnavailableError("not all shards were restored", received=f"{told[part]}: {failed} failed")
    documents = StateDocuments(cluster)
    for path in documents.paths(""):
        if path.endswith("/state"):
            found = documents.get(path)
            assert found is not None
            fresh = {"uid": secrets.token_hex(8), "owner": "", "until": 0.0, "clean": False}
            documents.put(path, {**found.value, **fresh}, after=found)
