"""The service on OpenSearch: it says whether it is ready, and serves again when its cluster does."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from support.encoders import use_fake_encoder

from hyblink.app.api.application import create_api
from hyblink.app.bootstrap import build
from hyblink.app.core.settings import OpenSearchSettings, Settings
from hyblink.app.engines.opensearch.local.cluster import Cluster, ClusterOptions

pytestmark = pytest.mark.services


def test_the_service_waits_for_its_cluster_and_tells(local_cluster: Callable[..., Cluster], tmp_path: Path) -> None:
    """Started before the cluster, it is alive and not ready; with the cluster it serves; without it again, it says so."""
    local_cluster()  # skips, or fails, where no node can be had
    cluster = Cluster(f"api-{time.time_ns()}")
    state = cluster.start(ClusterOptions(heap_mb=512))
    try:
        cluster.stop()
        again = ClusterOptions(heap_mb=512, port=state.nodes[0].http_port)
        options = OpenSearchSettings(hosts=(state.url,), retries=1, longest_pause_s=0.1, timeout_s=5)
        app = build(Settings(engine="opensearch", data_dir=tmp_path / "data", opensearch=options))
        use_fake_encoder(app)
        with TestClient(create_api(app), base_url="http://127.0.0.1") as client:
            assert client.get("/healthz").status_code == 200
            said = client.get("/readyz")
            assert said.status_code == 503
            assert "the store: unavailable" in said.json()["problems"]
            refused = client.post("/v1/search", json={"query": "anything"})
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "unavailable")
            cluster.start(again)
            deadline = time.monotonic() + 60
            while client.get("/readyz").status_code != 200:
                assert time.monotonic() < deadline, client.get("/readyz").json()
                time.sleep(0.2)
            assert client.post("/v1/collections", json={"name": "default"}).status_code == 201
            sent = client.post("/v1/documents:bulk", json={"documents": [{"id": "a", "text": "the sky is blue"}]})
            assert sent.status_code == 200, sent.text
            found = client.post("/v1/search", json={"query": "blue sky", "explain": True}).json()
            assert [hit["doc_id"] for hit in found["hits"]] == ["a"]
            assert client.get("/v1/documents/a").json()["text"] == "the sky is blue"
            cluster.stop()
            assert client.post("/v1/search", json={"query": "blue"}).status_code == 503
            assert client.get("/readyz").status_code == 503
            cluster.start(again)
            again = client.post("/v1/search", json={"query": "blue"})
            assert again.status_code == 200, again.text
        app.close()
    finally:
        cluster.remove()
