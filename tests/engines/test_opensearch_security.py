"""Connections that are encrypted, certified, named or signed: a real node behind a proxy that insists on it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import ssl
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trustme
from support.encoders import use_fake_encoder

from hyblink.app.bootstrap import build
from hyblink.app.core.errors import UnavailableError
from hyblink.app.core.settings import OpenSearchSettings, Settings
from hyblink.app.core.types.collections import CollectionSpec
from hyblink.app.core.types.search import SearchRequest
from hyblink.app.engines.opensearch.local.cluster import Cluster
from hyblink.app.operations.collections import ensure_collection

pytestmark = pytest.mark.services
_KEY_ID, _SECRET, _REGION = "THETESTSKEY", "known to this test and the proxy", "eu-central-1"


@dataclass(frozen=True)
class Request:
    """What a client sent."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


@contextmanager
def guarded(node: str, allows: Callable[[Request], bool], tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """A proxy in front of a node that answers 403 to what it does not allow; its address."""
    behind = urllib.parse.urlsplit(node)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            sent = {name.lower(): value for name, value in self.headers.items()}
            if not allows(Request(self.command, self.path, sent, body)):
                self.answer(403, b'{"error": "not allowed"}', "application/json")
                return
            onward = HTTPConnection(str(behind.hostname), behind.port or 9200, timeout=60)
            kept = {name: value for name, value in sent.items() if name in {"content-type", "content-encoding"}}
            onward.request(self.command, self.path, body or None, kept)
            answer = onward.getresponse()
            self.answer(answer.status, answer.read(), answer.getheader("content-type") or "text/plain")
            onward.close()

        def answer(self, status: int, body: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = forward

        def log_message(self, *_: object) -> None:
            """Nothing is printed."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    serving = threading.Thread(target=server.serve_forever, daemon=True)
    serving.start()
    try:
        yield f"{'http' if tls is None else 'https'}://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def node(local_cluster: Callable[..., Cluster]) -> str:
    state = local_cluster().state()
    assert state is not None
    return state.urls[0]


def works(options: OpenSearchSettings, folder: Path) -> None:
    """Make a collection, write to it, search it."""
    app = build(Settings(engine="opensearch", data_dir=folder, opensearch=options))
    use_fake_encoder(app)
    try:
        ensure_collection(app, CollectionSpec("c"))
        document = {"id": "ä/b", "text": "the sky is blue"}
        assert not app.documents.bulk("c", [document]).errors
        assert [hit.doc_id for hit in app.search.search("c", SearchRequest("blue sky")).hits] == ["ä/b"]
        assert app.documents.get("c", "ä/b").text == document["text"]
        assert [one.document.id for one in app.catalog.engine("c").store.reader().export()] == ["ä/b"]
        app.catalog.delete("c")
    finally:
        app.close()


def refused(options: OpenSearchSettings, folder: Path, said: str) -> None:
    app = build(Settings(engine="opensearch", data_dir=folder, opensearch=options))
    try:
        with pytest.raises(UnavailableError, match=said):
            ensure_collection(app, CollectionSpec("c"))
    finally:
        app.close()


def options_for(url: str, **more: object) -> OpenSearchSettings:
    return OpenSearchSettings(hosts=(url,), prefix=f"tls-{time.time_ns()}", retries=1, longest_pause_s=0.1, **more)  # type: ignore[arg-type]


def test_encrypted_with_certificates_of_both_sides(node: str, tmp_path: Path) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    authority.configure_trust(tls)
    tls.verify_mode = ssl.CERT_REQUIRED
    mine = authority.issue_cert("hyblink@example.org")
    trusted, other = tmp_path / "ca.pem", tmp_path / "stranger.pem"
    certificate, key = tmp_path / "client.pem", tmp_path / "client.key"
    authority.cert_pem.write_to_path(str(trusted))
    stranger.cert_pem.write_to_path(str(other))
    mine.cert_chain_pems[0].write_to_path(str(certificate))
    mine.private_key_pem.write_to_path(str(key))
    with guarded(node, lambda _: True, tls) as url:
        shown = {"client_certificate": certificate, "client_key": key}
        works(options_for(url, ca_file=trusted, **shown), tmp_path / "both")
        refused(options_for(url, ca_file=other, **shown), tmp_path / "stranger", "TLS")
        refused(options_for(url, ca_file=trusted), tmp_path / "none", "OpenSearch")  # shows no certificate


def test_with_a_name_and_a_password(node: str, tmp_path: Path) -> None:
    wanted = "Basic " + base64.b64encode("search:päss:word".encode()).decode()
    with guarded(node, lambda request: request.headers.get("authorization") == wanted) as url:
        works(options_for(url, user="search", password="päss:word"), tmp_path / "right")
        refused(options_for(url, user="search", password="wrong"), tmp_path / "wrong", "refused the credentials")


def test_signed_for_aws(node: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every request's signature is that of AWS's Signature Version 4 over what arrived."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", _KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", _SECRET)
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
    seen: list[str] = []

    def signed(request: Request) -> bool:
        seen.append(request.method)
        return request.headers.get("authorization", "") == signature(request)

    with guarded(node, signed) as url:
        works(options_for(url, aws_region=_REGION), tmp_path / "right")
        assert {"GET", "POST", "PUT"} <= set(seen)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
        refused(options_for(url, aws_region=_REGION), tmp_path / "wrong", "refused the credentials")


def signature(request: Request) -> str:
    """The Authorization header that AWS would expect of a request."""
    named = request.headers["authorization"].split("SignedHeaders=")[1].split(",")[0]
    path, _, query = request.target.partition("?")
    pairs = sorted(urllib.parse.parse_qsl(query, keep_blank_values=True))
    canonical = "\n".join(
        [
            request.method,
            urllib.parse.quote(path, safe="/~"),
            "&".join(f"{urllib.parse.quote(k, safe='~')}={urllib.parse.quote(v, safe='~')}" for k, v in pairs),
            *(f"{name}:{' '.join(request.headers[name].split())}" for name in named.split(";")),
            "",
            named,
            hashlib.sha256(request.body).hexdigest(),
        ]
    )
    stamp = request.headers["x-amz-date"]
    scope = f"{stamp[:8]}/{_REGION}/es/aws4_request"
    to_sign = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = b"AWS4" + _SECRET.encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    value = hmac.new(key, to_sign.encode(), "sha256").hexdigest()
    return f"AWS4-HMAC-SHA256 Credential={_KEY_ID}/{scope}, SignedHeaders={named}, Signature={value}"
