"""Every test in this folder runs on every engine. Another one joins by an entry in `ENGINES`."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.encoders import use_fake_encoder

from hyblink.app.application import App
from hyblink.app.bootstrap import build
from hyblink.app.core.settings import OpenSearchSettings, Settings
from hyblink.app.engines.opensearch.local.cluster import Cluster

ENGINES = [
    pytest.param("embedded"),
    pytest.param("opensearch", marks=pytest.mark.services),
    pytest.param("opensearch, 3 shards, stock", marks=[pytest.mark.services, pytest.mark.soak]),
]
_numbers = itertools.count()
AppMaker = Callable[..., App]


@pytest.fixture(scope="module", params=ENGINES)
def engine_kind(request: pytest.FixtureRequest) -> str:
    """Which engine the test runs on."""
    return str(request.param)


class Applications:
    """Makes applications whose data is named by a folder: the same name is the same data."""

    def __init__(self, kind: str, root: Path, url: str) -> None:
        self._kind, self._root, self._url = kind, root, url
        self._prefix = f"t{os.getpid()}-{next(_numbers)}"
        self._opened: list[App] = []

    def __call__(self, folder: str = "data", **settings: object) -> App:
        options: dict[str, object] = {"data_dir": self._root / folder}
        if self._kind != "embedded":
            stock = "stock" in self._kind
            options |= {
                "engine": "opensearch",
                # Each application keeps its own files, as another machine would.
                "data_dir": self._root / f"{folder}-{next(_numbers)}",
                "opensearch": OpenSearchSettings(
                    hosts=(self._url,),
                    prefix=f"{self._prefix}-{folder}",
                    shards=3 if stock else 1,
                    plugin=not stock,
                    keep_removed_s=0,
                    writer_lease_s=3,
                ),
            }
        app = build(Settings(**{**options, **settings}))  # type: ignore[arg-type]
        use_fake_encoder(app)
        self._opened.append(app)
        return app

    def close(self) -> None:
        """Close all; on the cluster, delete what they made."""
        for app in self._opened:
            if self._kind != "embedded":
                client = app.catalog._registry._cluster.client  # type: ignore[attr-defined]
                pattern = f"{self._prefix}-*"
                client.indices.delete(index=pattern, params={"expand_wildcards": "all", "ignore_unavailable": "true"})
                client.indices.delete_index_template(name=pattern, ignore=404)
            app.close()
        self._opened.clear()


@pytest.fixture(scope="module")
def cluster_url(engine_kind: str, request: pytest.FixtureRequest) -> str:
    """The address of a real cluster, where the engine needs one."""
    if engine_kind == "embedded":
        return ""
    local_cluster: Callable[..., Cluster] = request.getfixturevalue("local_cluster")
    state = local_cluster().state()
    assert state is not None
    return state.url


@pytest.fixture
def make_app(engine_kind: str, cluster_url: str, tmp_path: Path) -> Iterator[Applications]:
    """Applications on the engine, with the fake encoder; closed at the end."""
    made = Applications(engine_kind, tmp_path, cluster_url)
    yield made
    made.close()


@pytest.fixture(scope="module")
def make_lasting_app(
    engine_kind: str, cluster_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Applications]:
    """As `make_app`, for a whole module."""
    made = Applications(engine_kind, tmp_path_factory.mktemp("lasting"), cluster_url)
    yield made
    made.close()
