"""The local cluster, for real: one node by the command line, three nodes that lose one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
import pytest

from hyblink.app.core.errors import ConflictError
from hyblink.app.engines.opensearch.local.cluster import Cluster, ClusterOptions

pytestmark = pytest.mark.services


def hyblink(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hyblink.app.cli.main", *arguments], capture_output=True, text=True, check=False
    )


def test_start_status_logs_stop_by_the_command_line(local_cluster: Callable[..., Cluster]) -> None:
    name = f"cli-{os.getpid()}"
    try:
        started = hyblink("node", "start", "--name", name, "--port", "0", "--heap-mb", "512", "--json")
        assert started.returncode == 0, started.stderr
        state = json.loads(started.stdout)
        url = f"http://127.0.0.1:{state['nodes'][0]['http_port']}"
        assert httpx.get(url).json()["version"]["number"] == "3.8.0"
        pid = state["nodes"][0]["pid"]
        if os.geteuid() == 0:
            assert psutil.Process(pid).uids().real != 0
        assert hyblink("node", "status", "--name", name).returncode == 0
        again = hyblink("node", "start", "--name", name)
        assert again.returncode != 0
        assert "stop it first" in again.stderr
        assert "started" in hyblink("node", "logs", "--name", name).stdout
        httpx.put(f"{url}/kept", json={"settings": {"number_of_replicas": 0}}).raise_for_status()
        assert "1 stopped" in hyblink("node", "stop", "--name", name).stdout
        assert not psutil.pid_exists(pid)
        assert hyblink("node", "status", "--name", name).returncode == 1
        cluster = Cluster(name)
        state_again = cluster.start(ClusterOptions(heap_mb=512))
        assert httpx.head(f"{state_again.url}/kept").status_code == 200
    finally:
        Cluster(name).remove()
    assert not Cluster(name).folder.exists()


def test_three_nodes_go_on_without_one_and_take_it_back(local_cluster: Callable[..., Cluster]) -> None:
    cluster = local_cluster("three", nodes=3)
    state = cluster.state()
    assert state is not None
    body = {"settings": {"number_of_shards": 3, "number_of_replicas": 1}}
    httpx.put(f"{state.url}/numbers", json=body, timeout=30).raise_for_status()
    for number in range(30):
        httpx.put(f"{state.url}/numbers/_doc/{number}", json={"n": number}, timeout=30).raise_for_status()
    copies = {"wait_for_status": "green", "timeout": "30s"}  # a replica that is still being made is not promoted
    httpx.get(f"{state.url}/_cluster/health/numbers", params=copies, timeout=40).raise_for_status()
    process = state.nodes[2].process()
    assert process is not None
    process.kill()
    process.wait(10)
    httpx.get(
        f"{state.url}/_cluster/health", params={"wait_for_nodes": "2", "timeout": "30s"}, timeout=40
    ).raise_for_status()
    httpx.post(f"{state.url}/numbers/_refresh", timeout=30)
    assert httpx.get(f"{state.url}/numbers/_count", timeout=30).json()["count"] == 30
    with pytest.raises(ConflictError, match="running"):
        cluster.restart_node("node1")
    cluster.restart_node("node3")
    health = cluster.health()
    assert health is not None
    assert (health["status"], health["number_of_nodes"]) == ("green", 3)


def test_snapshots_have_a_place(local_cluster: Callable[..., Cluster]) -> None:
    cluster = local_cluster()
    state = cluster.state()
    assert state is not None
    location = str(Path(state.nodes[0].folder).parent / "snapshots")
    body = {"type": "fs", "settings": {"location": location}}
    assert httpx.put(f"{state.url}/_snapshot/local", json=body, timeout=30).json() == {"acknowledged": True}


FEATURES = {
    "settings": {"number_of_replicas": 0},
    "mappings": {"properties": {"bag": {"type": "rank_features"}}},
}


def vdr_score(url: str) -> float:
    """What the plugin's query scores for the one passage of a new index."""
    with httpx.Client(base_url=url, timeout=30) as client:
        client.put("/features", json=FEATURES).raise_for_status()
        client.put(
            "/features/_doc/1", params={"refresh": "true"}, json={"bag": {"7": 2.0, "9": 0.5}}
        ).raise_for_status()
        query = {"query": {"vdr": {"field": "bag", "weights": {"7": 1.5, "9": 4.0, "11": 1.0}}}}
        answer = client.post("/features/_search", json=query).raise_for_status().json()
        client.delete("/features").raise_for_status()
    return float(answer["hits"]["max_score"])


def test_our_plugin_runs_in_the_servers_sandbox() -> None:
    cluster = Cluster(f"agent-{os.getpid()}")
    try:
        state = cluster.start(ClusterOptions(heap_mb=512, agent=True))
        assert vdr_score(state.url) == pytest.approx(5.0)
        process = state.nodes[0].process()
        assert process is not None
        assert any(argument.startswith("-javaagent:") for argument in process.cmdline())
    finally:
        cluster.remove()


def test_our_plugin_beside_the_knn_plugin_on_the_version_that_has_it() -> None:
    cluster = Cluster(f"knn-{os.getpid()}")
    vectors = {
        "settings": {"index": {"knn": True, "number_of_replicas": 0}},
        "mappings": {
            "properties": {
                "v": {
                    "type": "knn_vector",
                    "dimension": 2,
                    "method": {"name": "hnsw", "engine": "lucene", "space_type": "innerproduct"},
                }
            }
        },
    }
    try:
        state = cluster.start(ClusterOptions(version="3.6.0", heap_mb=768))
        assert vdr_score(state.url) == pytest.approx(5.0)
        with httpx.Client(base_url=state.url, timeout=30) as client:
            client.put("/vectors", json=vectors).raise_for_status()
            client.put("/vectors/_doc/1", params={"refresh": "true"}, json={"v": [3, 4]}).raise_for_status()
            query = {"query": {"knn": {"v": {"vector": [1, 0], "k": 1}}}}
            hits = client.post("/vectors/_search", json=query).raise_for_status().json()["hits"]
            # Lucene's scale for inner products above 0 is 1 + product.
            assert hits["max_score"] == pytest.approx(4.0)
    finally:
        cluster.remove()
