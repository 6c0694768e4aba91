"""Faults of a real cluster and of the way to it: nothing acknowledged is lost, nothing half-written is seen, it heals."""

from __future__ import annotations

import base64
import http.client
import random
import shutil
import signal
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from support.services import missing_service

from hyblink.app.core.errors import HyblinkError, StorageFullError, UnavailableError
from hyblink.app.core.ports.store import PreparedDocument
from hyblink.app.core.types.arrays import TermWeights
from hyblink.app.core.types.collections import CollectionSpec
from hyblink.app.core.types.documents import DocId, Document
from hyblink.app.engines.opensearch.local.cluster import Cluster
from hyblink.app.operations.collections import ensure_collection
from hyblink.app.operations.encoding import encode_now
from tests.support.opensearch_faults import (
    KILLS,
    WRITES,
    AppMaker,
    Watched,
    documents,
    look,
    make_cluster_app,  # noqa: F401 - a fixture
    one_node,
)

pytestmark = pytest.mark.services


class Proxy:
    """Stands between a client and a node, and does to requests what `fate` says."""

    def __init__(self, url: str, tls: ssl.SSLContext | None = None) -> None:
        self.credentials: set[str] = set()
        self.fate: Callable[[str, str], str] = lambda _method, _path: "pass"
        self.met: list[str] = []
        target = urlsplit(url)
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments: object) -> None:
                del arguments

            def _any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                fate = proxy.fate(self.command, self.path)
                proxy.credentials.add(self.headers.get("Authorization") or "")
                proxy.met.append(fate)
                if fate == "busy":
                    said = b'{"error": {"type": "rejected_execution_exception", "reason": "full"}, "status": 429}'
                    self._answer(429, said)
                    return
                if fate == "cut":
                    self.close_connection = True
                    return
                upstream = http.client.HTTPConnection(target.hostname or "", target.port, timeout=60)
                try:
                    headers = {k: v for k, v in self.headers.items() if k.lower() not in {"host", "connection"}}
                    upstream.request(self.command, self.path, body, headers)
                    answer = upstream.getresponse()
                    said = answer.read()
                finally:
                    upstream.close()
                if fate == "lose":  # done, but nobody hears of it
                    self.close_connection = True
                    return
                self._answer(answer.status, said)

            def _answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _any

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if tls:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def proxy(local_cluster: Callable[..., Cluster]) -> Iterator[Proxy]:
    made = Proxy(one_node(local_cluster))
    yield made
    made.close()


@pytest.mark.parametrize("fates", [("busy",), ("cut",), ("lose",), ("busy", "cut", "lose")], ids="+".join)
def test_storms_on_the_way_to_the_node(proxy: Proxy, make_cluster_app: AppMaker, fates: tuple[str, ...]) -> None:
    """A third of all requests are answered 429, are cut off before the node, or are done and their answer lost."""
    app = make_cluster_app((proxy.url,), retries=12, longest_pause_s=0.2)
    ensure_collection(app, CollectionSpec("c"))
    rng = random.Random(1)
    watched = Watched(app, app)
    proxy.fate = lambda _method, _path: rng.choice([*fates, *["pass"] * 2 * len(fates)])
    with watched.searching():
        for _ in range(WRITES):
            watched.write()
    proxy.fate = lambda _method, _path: "pass"
    assert proxy.met.count(fates[0]) > WRITES // 2
    assert watched.acknowledged >= 0
    watched.check()


def test_encrypted_connections_and_credentials(
    local_cluster: Callable[..., Cluster], make_cluster_app: AppMaker, tmp_path: Path
) -> None:
    """Through a server that speaks TLS with a certificate of its own authority."""
    if not shutil.which("openssl"):
        missing_service("openssl")
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    )
    subprocess.run([*command.split(), "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    proxy = Proxy(one_node(local_cluster), context)
    try:
        app = make_cluster_app((proxy.url,), ca_file=certificate, user="somebody", password="secret word")
        ensure_collection(app, CollectionSpec("c"))
        app.documents.bulk("c", documents(0), encode=False)
        assert look(app) == 0
        assert proxy.credentials == {"Basic " + base64.b64encode(b"somebody:secret word").decode()}
        stranger = make_cluster_app((proxy.url,), retries=0)
        with pytest.raises(UnavailableError, match="TLS connection to OpenSearch failed"):
            stranger.catalog.names()
        app.catalog.delete("c")
    finally:
        proxy.close()


def test_a_partition_ends_in_a_clear_error_and_heals(proxy: Proxy, make_cluster_app: AppMaker) -> None:
    app = make_cluster_app((proxy.url,), retries=2, longest_pause_s=0.1)
    ensure_collection(app, CollectionSpec("c"))
    app.documents.bulk("c", documents(0), encode=False)
    bulk_met = 0

    def fate(_method: str, path: str) -> str:
        nonlocal bulk_met
        bulk_met += path.startswith("/_bulk")
        return "cut" if bulk_met else "pass"

    proxy.fate = fate
    for _ in range(2):
        with pytest.raises(UnavailableError, match="did not answer"):
            app.documents.bulk("c", documents(1), encode=False)
        with pytest.raises(UnavailableError, match="did not answer"):
            look(app)
    proxy.fate = lambda _method, _path: "pass"
    assert look(app) == 0, "what was cut short is not seen"
    app.documents.bulk("c", documents(2), encode=False)
    assert look(app) == 2
    assert app.catalog.engine("c").check() == []


def test_a_node_of_three_is_killed_while_it_is_written_to_and_searched(
    local_cluster: Callable[..., Cluster], make_cluster_app: AppMaker
) -> None:
    cluster = local_cluster("three", nodes=3)
    state = cluster.state()
    assert state is not None
    options = {"shards": 3, "replicas": 1, "retries": 8, "longest_pause_s": 1.0, "timeout_s": 5}
    app = make_cluster_app(state.urls, "killed", **options)
    reader = make_cluster_app(state.urls, "killed", **options)
    ensure_collection(app, CollectionSpec("c"))
    watched = Watched(app, reader)
    watched.write()
    with watched.searching():
        for number in range(KILLS):
            node = f"node{number % 3 + 1}"
            victim = next(one for one in cluster.state().nodes if one.name == node)  # type: ignore[union-attr]
            process = victim.process()
            assert process is not None
            killer = threading.Timer(0.3, process.kill)
            killer.start()
            until = time.monotonic() + 4
            while time.monotonic() < until:
                watched.write()
            killer.join()
            process.wait(20)
            for _ in range(5):
                watched.write()
            cluster.restart_node(node)
    assert watched.acknowledged > KILLS * 4
    watched.check()


def test_a_new_collection_has_its_replicas_before_it_takes_a_write(
    local_cluster: Callable[..., Cluster], make_cluster_app: AppMaker
) -> None:
    """A copy that is still being made would not be promoted if the other one's node died."""
    cluster = local_cluster("three", nodes=3)
    state = cluster.state()
    assert state is not None
    app = make_cluster_app(state.urls, "copies", shards=3, replicas=1)
    for number in range(8):
        ensure_collection(app, CollectionSpec(f"c{number}"))
        rows = httpx.get(f"{state.url}/_cat/shards/copies*-c{number}-*?format=json", timeout=30).json()
        assert len(rows) == 2 * 3 * 2, "passages and documents, three shards, two copies"
        assert {row["state"] for row in rows} == {"STARTED"}


def test_a_paused_node_is_waited_for_no_longer_than_allowed(
    local_cluster: Callable[..., Cluster], make_cluster_app: AppMaker
) -> None:
    cluster = local_cluster()
    state = cluster.state()
    assert state is not None
    app = make_cluster_app(state.urls, timeout_s=1, retries=1, longest_pause_s=0.1)
    ensure_collection(app, CollectionSpec("c"))
    app.documents.bulk("c", documents(0), encode=False)
    process = state.nodes[0].process()
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    try:
        for act in (lambda: look(app), lambda: app.documents.bulk("c", documents(1), encode=False)):
            started = time.monotonic()
            with pytest.raises(UnavailableError, match="did not answer"):
                act()
            assert time.monotonic() - started < 30
    finally:
        process.send_signal(signal.SIGCONT)
    deadline = time.monotonic() + 60
    while True:
        try:
            app.documents.bulk("c", documents(2), encode=False)
            break
        except HyblinkError:
            assert time.monotonic() < deadline, "it did not heal"
    assert look(app) == 2
    assert app.catalog.engine("c").check() == []


def test_a_full_disk_refuses_writes_by_name_and_goes_on_searching(
    local_cluster: Callable[..., Cluster], make_cluster_app: AppMaker
) -> None:
    """The block that a node sets at its flood-stage watermark."""
    url = one_node(local_cluster)
    app = make_cluster_app((url,), "flood", retries=1, longest_pause_s=0.1)
    ensure_collection(app, CollectionSpec("c"))
    app.documents.bulk("c", documents(0), encode=False)
    block = {"index.blocks.read_only_allow_delete": True}
    httpx.put(f"{url}/flood-passages-*,flood-documents-*/_settings", json=block).raise_for_status()
    with pytest.raises(StorageFullError, match="disk is full"):
        app.documents.bulk("c", documents(1), encode=False)
    with pytest.raises(StorageFullError):
        encode_now(app, "c")
    assert look(app) == 0
    block = {"index.blocks.read_only_allow_delete": None}  # type: ignore[dict-item]
    httpx.put(f"{url}/flood-passages-*,flood-documents-*/_settings", json=block).raise_for_status()
    app.documents.bulk("c", documents(2), encode=False)
    encode_now(app, "c")
    assert look(app) == 2
    assert app.catalog.engine("c").check() == []


def test_a_red_index_is_refused_and_serves_again_when_its_node_is_back(
    local_cluster: Callable[..., Cluster], make_cluster_app: AppMaker
) -> None:
    """Without replicas a dead node takes shards with it: no answer is made of the others alone."""
    cluster = local_cluster("three", nodes=3)
    state = cluster.state()
    assert state is not None
    app = make_cluster_app(state.urls, shards=3, replicas=0, retries=3, longest_pause_s=0.2, timeout_s=5)
    ensure_collection(app, CollectionSpec("c"))
    app.documents.bulk("c", documents(0), encode=False)
    process = state.nodes[1].process()
    assert process is not None
    process.kill()
    process.wait(20)
    refused = 0
    for _ in range(10):
        try:
            assert look(app) == 0
        except UnavailableError:
            refused += 1
    assert refused > 0
    with pytest.raises(UnavailableError):
        app.documents.bulk("c", documents(1), encode=False)
    cluster.restart_node("node2")
    assert look(app) == 0
    app.documents.bulk("c", documents(2), encode=False)
    assert look(app) == 2
    assert app.catalog.engine("c").check() == []


def test_what_the_mapping_refuses_costs_one_document_and_not_the_others(
    local_cluster: Callable[..., Cluster], make_cluster_app: AppMaker
) -> None:
    app = make_cluster_app((one_node(local_cluster),))
    ensure_collection(app, CollectionSpec("c"))
    app.documents.bulk("c", [{"id": "bad", "text": "the old version"}], encode=False)
    store = app.catalog.engine("c").store

    def prepared(doc_id: str, weight: float) -> PreparedDocument:
        terms = TermWeights(np.array([7], dtype=np.int32), np.array([weight], dtype=np.float32))
        return PreparedDocument(Document(DocId(doc_id), "new text"), ((0, 8),), (terms,), f"hash {doc_id}")

    result = store.write([prepared("a", 1.0), prepared("bad", -1.0), prepared("b", 1.0)])
    assert [(item.id, item.status) for item in result.items] == [
        ("a", "created"),
        ("bad", "rejected"),
        ("b", "created"),
    ]
    assert "positive" in result.items[1].message
    reader = store.reader()
    assert reader.counts().documents == 3
    kept = reader.get_document("bad")
    assert kept is not None
    assert kept.text == "the old version"
    assert reader.integrity() == []
    assert app.catalog.engine("c").check() == []
