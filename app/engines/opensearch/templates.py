"""The OpenSearch index templates: JSON files, installed on the cluster with a version and the installation's prefix."""

from __future__ import annotations

import json
from typing import Any

from hyblink.app.analysis.terms import ANALYZER_VERSION
from hyblink.app.core.errors import ConflictError
from hyblink.app.core.process import package_folder
from hyblink.app.engines.opensearch.client import Cluster

_FOLDER = package_folder() / "opensearch" / "templates"
_ANALYSIS = "analysis"
INDEX_TEMPLATES = ("catalog", "documents", "passages", "records")

_ADDED = {"documents": ("sections",), "passages": ("path", "place", "file_name")}
"""Fields that have been added to templates after their first release."""


def read_template(name: str, prefix: str = "hyblink") -> dict[str, Any]:
    """The JSON of a template, `analysis` or one of `INDEX_TEMPLATES`, for indexes whose names begin with `prefix`."""
    found: dict[str, Any] = json.loads((_FOLDER / f"{name}.json").read_text())
    if "index_patterns" in found:
        found["index_patterns"] = [pattern.replace("hyblink", prefix, 1) for pattern in found["index_patterns"]]
    return found


def install_templates(cluster: Cluster) -> None:
    """Install the templates that are missing or outdated on the cluster. Raises ConflictError if it has newer ones."""
    prefix = cluster.prefix
    client = cluster.client
    analysis = read_template(_ANALYSIS)
    assert analysis["_meta"]["analyzer_version"] == ANALYZER_VERSION
    filtered = {"filter_path": "**.name,**.version"}
    found = cluster.call(lambda: client.cluster.get_component_template(params=filtered))
    versions = {
        result["name"]: result["component_template"].get("version", 0)
        for result in found.get("component_templates", [])
    }
    if _outdated("hyblink-analysis", versions, analysis["version"]):
        cluster.call(lambda: client.cluster.put_component_template(name="hyblink-analysis", body=analysis))
    found = cluster.call(lambda: client.indices.get_index_template(params=filtered))
    versions = {
        result["name"]: result["index_template"].get("version", 0) for result in found.get("index_templates", [])
    }
    for name in INDEX_TEMPLATES:
        body = read_template(name, prefix)
        installed = f"{prefix}-{name}"
        if _outdated(installed, versions, body["version"]):
            _add_fields(cluster, name, body)
            cluster.call(lambda at=installed, body=body: client.indices.put_index_template(name=at, body=body))  # type: ignore[misc]


def _add_fields(cluster: Cluster, name: str, body: dict[str, Any]) -> None:
    """Give indexes of an earlier release the fields that have come since."""
    fields = {field: body["template"]["mappings"]["properties"][field] for field in _ADDED.get(name, ())}
    if fields:
        index, params = body["index_patterns"], {"allow_no_indices": "true", "ignore_unavailable": "true"}
        client = cluster.client
        cluster.call(lambda: client.indices.put_mapping(index=index, body={"properties": fields}, params=params))


def _outdated(name: str, versions: dict[str, int], ours: int) -> bool:
    found = versions.get(name, 0)
    if found > ours:
        raise ConflictError(
            f"the cluster's template {name} is from a newer hyblink",
            received=f"version {found}",
            expected=f"version {ours} or older",
        )
    return found < ours
