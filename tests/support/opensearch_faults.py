"""Helpers shared by the OpenSearch fault-injection tests."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from support.encoders import use_fake_encoder
from support.services import SOAK

from hyblink.app.application import App
from hyblink.app.bootstrap import build
from hyblink.app.core.errors import HyblinkError
from hyblink.app.core.settings import IngestSettings, OpenSearchSettings, Settings
from hyblink.app.core.types.search import SearchRequest
from hyblink.app.engines.opensearch.local.cluster import Cluster
from hyblink.app.operations.encoding import encode_now

KILLS = 10 if SOAK else 2


WRITES = 150 if SOAK else 12


TOGETHER = 4


NUMBERS = itertools.count()


AppMaker = Callable[..., App]


@pytest.fixture
def make_cluster_app(tmp_path: Path) -> Iterator[AppMaker]:
    """A factory of applications on a cluster. Their collections are deleted at the end."""
    opened: list[App] = []

    def make(urls: tuple[str, ...], prefix: str = "", **options: Any) -> App:
        settings = {"hosts": urls, "keep_removed_s": 0, "writer_lease_s": 2, **options}
        settings["prefix"] = prefix or f"f{os.getpid()}-{next(NUMBERS)}"
        app = build(
            Settings(
                engine="opensearch",
                data_dir=tmp_path / f"data{next(NUMBERS)}",
                opensearch=OpenSearchSettings(**settings),
                ingest=IngestSettings(writer_wait_s=15),
            )
        )
        use_fake_encoder(app)
        opened.append(app)
        return app

    yield make
    for app in opened:
        with suppress(HyblinkError):
            for name in app.catalog.names():
                app.catalog.delete(name)
        app.close()


def documents(version: int) -> list[dict[str, Any]]:
    """The documents of a version, which are always written in one bulk request."""
    return [
        {"id": f"d{n}", "text": f"alpha version{version} " + "beta " * (version % 7), "metadata": {"version": version}}
        for n in range(TOGETHER)
    ]


def look(app: App) -> int:
    """The version that a search sees, -1 for none. Asserts that the search sees all documents of one version."""
    hits = app.search.search("c", SearchRequest("alpha", k=10)).hits
    versions = {hit.metadata["version"] for hit in hits}
    assert len(hits) in {0, TOGETHER}, f"a search saw {len(hits)} of {TOGETHER} documents"
    assert len(versions) <= 1, f"a search saw versions {versions} at once"
    return int(str(next(iter(versions), -1)))


class Watched:
    """Writes and searches concurrently while a test injects faults, and records violations in `wrong`.

    A search must not see an older version than the last acknowledged one, nor a mixture of versions.
    """

    def __init__(self, app: App, reader: App) -> None:
        self.app, self.reader = app, reader
        self.acknowledged, self.begun = -1, -1
        self.searches, self.refused_searches, self.refused_writes = 0, 0, 0
        self.wrong: list[str] = []
        self.stop = threading.Event()

    def write(self) -> None:
        """Write the next version; a refused write is counted."""
        self.begun += 1
        try:
            result = self.app.documents.bulk("c", documents(self.begun), encode=False)
            assert not result.errors
            self.acknowledged = self.begun
        except HyblinkError:
            self.refused_writes += 1

    def search(self) -> None:
        """Search until `stop` is set, recording violations and counting refused searches."""
        while not self.stop.is_set():
            promised = self.acknowledged
            try:
                version = look(self.reader)
                self.searches += 1
                if version < promised:
                    self.wrong.append(f"version {promised} was acknowledged before, a search saw {version}")
            except HyblinkError:
                self.refused_searches += 1
            except AssertionError as error:
                self.wrong.append(str(error))
            time.sleep(0.01)

    @contextmanager
    def searching(self) -> Iterator[None]:
        """Run `search` in a thread within the context."""
        thread = threading.Thread(target=self.search)
        thread.start()
        try:
            yield
        finally:
            self.stop.set()
            thread.join()

    def check(self) -> None:
        """Assert, after all faults have ended, that nothing was violated and that writes and searches work again."""
        print(
            f"{self.begun + 1} writes, {self.refused_writes} refused; {self.searches} searches, "
            f"{self.refused_searches} refused"
        )
        assert self.wrong == []
        assert self.searches > 0
        assert look(self.reader) >= self.acknowledged
        self.write()
        assert self.acknowledged == self.begun == look(self.reader)
        encode_now(self.app, "c")
        assert look(self.reader) == self.begun
        assert self.app.catalog.engine("c").check() == []
        assert self.app.catalog.engine("c").store.reader().counts().documents == TOGETHER


def one_node(local_cluster: Callable[..., Cluster]) -> str:
    """The URL of a running single-node cluster."""
    state = local_cluster().state()
    assert state is not None
    return state.url
