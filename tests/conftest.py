"""Fixtures shared by all tests: applications in temporary folders, a fake dense encoder, OpenSearch clusters."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.encoders import use_fake_encoder
from support.services import missing_service

from hyblink.app.application import App
from hyblink.app.bootstrap import build
from hyblink.app.core.settings import Settings
from hyblink.app.core.types.collections import CollectionSpec
from hyblink.app.engines.opensearch.local.cluster import Cluster
from hyblink.app.operations.collections import ensure_collection

# By default, applications in tests run their jobs themselves, without a message broker.
os.environ.setdefault("HYBLINK_JOBS__BROKER", "none")
_KEPT = {
    "HYBLINK_DATA",
    "HYBLINK_SCREENSHOT",
    "HYBLINK_SOAK",
    "HYBLINK_SOAK_SECONDS",
    "HYBLINK_JOBS__BROKER",
    "HYBLINK_TEST_API",
}


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Remove the caller's HYBLINK_ settings, and run each test in a temporary working directory."""
    for name in list(os.environ):
        if name.startswith("HYBLINK_") and name not in _KEPT:
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path_factory.mktemp("cwd"))


@pytest.fixture
def make_app(tmp_path: Path) -> Iterator[Callable[..., App]]:
    """A factory of applications with data in `tmp_path/<folder>` and the fake encoder. They are closed at the end."""
    opened: list[App] = []

    def make(folder: str = "data", **settings: object) -> App:
        app = build(Settings(data_dir=tmp_path / folder, **settings))  # type: ignore[arg-type]
        use_fake_encoder(app)
        opened.append(app)
        return app

    yield make
    for app in opened:
        app.close()


@pytest.fixture
def app(make_app: Callable[..., App]) -> App:
    """An application with an empty collection `default`."""
    made = make_app()
    ensure_collection(made, CollectionSpec("default"))
    return made


@pytest.fixture(scope="session")
def benchmark_data() -> Path:
    """The folder of benchmark data sets named by HYBLINK_DATA. Skips the test if it is not set."""
    folder = os.environ.get("HYBLINK_DATA")
    if not folder:
        pytest.skip("HYBLINK_DATA does not name a folder with benchmarks")
    return Path(folder)


@pytest.fixture(scope="session")
def local_cluster() -> Iterator[Callable[..., Cluster]]:
    """A function that returns a running OpenSearch cluster. Each `kind` is started once and removed at the end."""
    from hyblink.app.core.errors import UnavailableError
    from hyblink.app.engines.opensearch.local.cluster import ClusterOptions

    started: dict[str, Cluster] = {}

    def get(kind: str = "one", **options: object) -> Cluster:
        if kind not in started:
            cluster = Cluster(f"test-{os.getpid()}-{kind}")
            cluster.remove()
            try:
                cluster.start(ClusterOptions(heap_mb=512, **options))  # type: ignore[arg-type]
            except UnavailableError as error:
                if "Java" in str(error) or "Maven" in str(error):
                    missing_service(str(error))
                raise
            started[kind] = cluster
        state = started[kind].state()
        for node in state.nodes if state else ():
            if node.process() is None:  # a failed test may have left the node stopped
                started[kind].restart_node(node.name)
        return started[kind]

    yield get
    for cluster in started.values():
        cluster.remove()
