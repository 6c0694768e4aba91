"""Force-merges the indexes of a generation, so that deleted passages leave BM25's statistics."""

from __future__ import annotations

import time

from hyblink.app.engines.opensearch.client import Cluster
from hyblink.app.engines.opensearch.layout import Names

_LOOK_S = 0.5


def merge(cluster: Cluster, names: Names, patience_s: float, *, expunge: bool = False) -> None:
    """Merge the passages and documents of a generation into one segment for each shard.

    With `expunge`, only segments that hold deleted entries are merged.

    Waits at most `patience_s` seconds until no shard retains deleted entries for replicas.
    """
    what = {"only_expunge_deletes": "true"} if expunge else {"max_num_segments": 1}
    options = {**what, "request_timeout": 3600}
    index = f"{names.passages},{names.documents}"
    # Lucene also retains entries whose deletion is not committed yet, so flush first.
    cluster.call(lambda: cluster.client.indices.flush(index=index))
    deadline = time.monotonic() + patience_s
    while _retained(cluster, names) and time.monotonic() < deadline:
        time.sleep(_LOOK_S)
    cluster.call(lambda: cluster.client.indices.forcemerge(index=index, params=options))
    cluster.refresh(names.passages, names.documents)


def _retained(cluster: Cluster, names: Names) -> bool:
    """Whether a shard retains deleted entries because a recovering replica might need the operations."""
    stats = cluster.call(lambda: cluster.client.indices.stats(index=names.passages, params={"level": "shards"}))
    for copies in stats["indices"][names.passages]["shards"].values():
        for copy in copies:
            kept = [lease["retaining_seq_no"] for lease in copy["retention_leases"]["leases"]]
            if copy["docs"]["deleted"] and kept and min(kept) <= copy["seq_no"]["global_checkpoint"]:
                return True
    return False
