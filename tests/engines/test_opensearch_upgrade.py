"""Indexes of an earlier release on a cluster."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from hyblink.app.core.settings import OpenSearchSettings
from hyblink.app.engines.opensearch.client import Cluster
from hyblink.app.engines.opensearch.templates import install_templates, read_template


@pytest.mark.services
def test_they_get_the_fields_that_have_come_since(local_cluster: Callable[..., Any]) -> None:
    state = local_cluster().state()
    assert state is not None
    prefix = f"old{os.getpid()}"
    cluster = Cluster(OpenSearchSettings(hosts=(state.url,), prefix=prefix))
    client = cluster.client
    new = {"passages": {"path", "place", "file_name"}, "documents": {"sections"}}
    client.cluster.put_component_template(name="hyblink-analysis", body=read_template("analysis"))
    for name, fields in new.items():
        body = read_template(name, prefix)
        body["version"] -= 1
        for field in fields:
            del body["template"]["mappings"]["properties"][field]
        client.indices.put_index_template(name=f"{prefix}-{name}", body=body)
        client.indices.create(index=f"{prefix}-{name}-c-g000001")
    try:
        for _ in range(2):
            install_templates(cluster)
            for name, fields in new.items():
                index = f"{prefix}-{name}-c-g000001"
                found = client.indices.get_mapping(index=index)[index]["mappings"]["properties"]
                assert fields <= set(found), name
    finally:
        client.indices.delete(index=f"{prefix}-*", params={"expand_wildcards": "all"})
        client.indices.delete_index_template(name=f"{prefix}-*", ignore=404)
