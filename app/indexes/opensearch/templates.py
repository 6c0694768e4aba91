"""The index templates: kept as JSON beside the code, installed under their versions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from app.core.errors import ConflictError
from app.core.text import ANALYZER_VERSION
from app.indexes.opensearch.client import Cluster

_FOLDER = Path(__file__).resolve().parents[3] / "opensearch" / "templates"
PASSAGES = "hyblink-passages"
ANALYSIS = "hyblink-analysis"


def read_template(name: str) -> dict[str, Any]:
    """A template as JSON: `analysis` or `passages`."""
    found: dict[str, Any] = json.loads((_FOLDER / f"{name}.json").read_text())
    return found


def install_templates(cluster: Cluster) -> None:
    """Put the templates on the cluster, unless it has these versions. Raises ConflictError where it has newer ones."""
    analysis, passages = read_template("analysis"), read_template("passages")
    assert analysis["_meta"]["analyzer_version"] == ANALYZER_VERSION
    client = cluster.client
    found = cluster.call(lambda: client.cluster.get_component_template(params={"filter_path": "**.name,**.version"}))
    versions = {one["name"]: one["component_template"].get("version", 0) for one in found.get("component_templates", [])}
    _check(ANALYSIS, versions.get(ANALYSIS, 0), analysis["version"])
    if versions.get(ANALYSIS) != analysis["version"]:
        cluster.call(lambda: client.cluster.put_component_template(name=ANALYSIS, body=analysis))
    found = cluster.call(lambda: client.indices.get_index_template(params={"filter_path": "**.name,**.version"}))
    versions = {one["name"]: one["index_template"].get("version", 0) for one in found.get("index_templates", [])}
    _check(PASSAGES, versions.get(PASSAGES, 0), passages["version"])
    if versions.get(PASSAGES) != passages["version"]:
        cluster.call(lambda: client.indices.put_index_template(name=PASSAGES, body=passages))


def _check(name: str, found: int, ours: int) -> None:
    if found > ours:
        raise ConflictError(
            f"the cluster's template {name} is from a newer hyblink",
            received=f"version {found}",
            expected=f"version {ours} or older",
        )
