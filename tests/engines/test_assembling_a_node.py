"""What can be said of the local node without starting it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hyblink.app.core.errors import ConflictError, InvalidInputError, UnavailableError
from hyblink.app.engines.opensearch.local import java
from hyblink.app.engines.opensearch.local.assemble import PLUGIN, VERSIONS, assemble, parse_tree
from hyblink.app.engines.opensearch.local.cluster import Cluster, ClusterOptions, ClusterState, NodeState

TREE = """me:me:pom:1
+- org.opensearch:opensearch:jar:3.8.0:compile
|  +- a:core:jar:2:compile
|  |  \\- (b:log:jar:1:compile - omitted for duplicate)
|  \\- b:log:jar:1:compile
+- org.opensearch.plugin:geo:jar:3.8.0:compile
|  +- (a:core:jar:1:compile - omitted for conflict with 2)
|  \\- c:native:jar:linux-x86_64:4:runtime
\\- org.opensearch.plugin:knn:zip:3.6.0.0:compile
"""


def test_a_verbose_tree_says_what_each_artifact_needs() -> None:
    tree = parse_tree(TREE)
    assert tree.roots == ["org.opensearch:opensearch", "org.opensearch.plugin:geo", "org.opensearch.plugin:knn"]
    assert tree.closure("org.opensearch:opensearch") == {"org.opensearch:opensearch", "a:core", "b:log"}
    assert tree.closure("org.opensearch.plugin:geo") >= {"a:core", "b:log", "c:native"}
    assert tree.closure("org.opensearch.plugin:geo", frozenset({"a:core"})) == {"org.opensearch.plugin:geo", "c:native"}
    assert tree.files["a:core"] == {"core-2.jar"}
    assert tree.files["c:native"] == {"native-4-linux-x86_64.jar"}
    assert tree.files["org.opensearch.plugin:knn"] == {"knn-3.6.0.0.zip"}


def jdk(folder: Path, version: str) -> Path:
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "java").touch()
    (folder / "release").write_text(f'IMPLEMENTOR="x"\nJAVA_VERSION="{version}"\n')
    return folder


def test_java_home_is_taken_if_it_is_new_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(java, "_installed", lambda: iter([java.Java(Path("/new"), 25), java.Java(Path("/lts"), 21)]))
    monkeypatch.setenv("JAVA_HOME", str(jdk(tmp_path / "a", "21.0.2")))
    assert java.find_java() == java.Java(tmp_path / "a", 21)
    monkeypatch.setenv("JAVA_HOME", str(jdk(tmp_path / "b", "17.0.15")))
    assert java.find_java() == java.Java(Path("/new"), 25)
    monkeypatch.delenv("JAVA_HOME")
    assert java.find_java() == java.Java(Path("/new"), 25)
    monkeypatch.setattr(java, "_installed", lambda: iter([java.Java(Path("/old"), 17)]))
    with pytest.raises(UnavailableError, match="21 or newer") as error:
        java.find_java()
    assert "17 in /old" in str(error.value)


def test_bad_requests_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="bad cluster name"):
        Cluster("../x", tmp_path)
    with pytest.raises(InvalidInputError, match="1 to 9"):
        Cluster("x", tmp_path).start(ClusterOptions(nodes=10))
    with pytest.raises(UnavailableError, match=r"3\.8\.0, 3\.6\.0"):
        assemble("9.9.9", java.Java(tmp_path, 21))


def test_another_process_with_the_same_id_is_not_ours(tmp_path: Path) -> None:
    node = NodeState("node1", str(tmp_path), 1, 2, os.getpid(), started=0.0)
    assert node.process() is None
    cluster = Cluster("x", tmp_path)
    assert cluster.stop() == 0


def test_the_data_of_another_cluster_is_not_mixed_in(tmp_path: Path) -> None:
    from dataclasses import asdict

    from hyblink.app.core.manifest import write_json

    cluster = Cluster("x", tmp_path)
    old = NodeState("node1", str(tmp_path), 1, 2, os.getpid(), started=0.0)
    (tmp_path / "x").mkdir()
    write_json(tmp_path / "x" / "cluster.json", asdict(ClusterState("x", "3.8.0", (old,))))
    with pytest.raises(ConflictError, match="3 nodes of version 3.8.0"):
        cluster.start(ClusterOptions(nodes=3))


def test_compose_builds_a_version_that_the_plugin_has() -> None:
    import yaml

    root = Path(__file__).parents[2]
    compose = yaml.safe_load((root / "compose.yaml").read_text())
    service = compose["services"]["opensearch"]
    version = service["build"]["args"]["OPENSEARCH_VERSION"]
    assert version in VERSIONS
    assert f"<id>opensearch-{version}</id>" in (PLUGIN / "pom.xml").read_text()
    assert f"ARG OPENSEARCH_VERSION={version}" in (root / "opensearch" / "Dockerfile").read_text()
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    for volume in service["volumes"]:
        assert volume.split(":")[0] in compose["volumes"]
