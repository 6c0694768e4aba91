"""Tokens of an identity provider: a real one on loopback, that publishes its keys and signs; and what forgers try."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from fastapi.testclient import TestClient

import hyblink.app.access.oidc as oidc
from hyblink.app.api.application import create_api
from hyblink.app.application import App
from hyblink.app.core.errors import ForbiddenError, InvalidInputError
from hyblink.app.core.settings import ApiSettings, OidcSettings

AUDIENCE = "hyblink"


class Provider:
    """Publishes a discovery document and keys, and makes tokens."""

    def __init__(self) -> None:
        self.keys: dict[str, Any] = {"first": rsa.generate_private_key(public_exponent=65537, key_size=2048)}
        self.fetched = self.asked = 0
        self.down = False
        self.redirect = ""
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.asked += 1
                if provider.down:
                    self.send_error(500)
                    return
                if provider.redirect:
                    self.send_response(302)
                    self.send_header("Location", provider.redirect)
                    self.end_headers()
                    return
                provider.fetched += self.path == "/keys"
                body = json.dumps(
                    provider.published() if self.path == "/keys" else {"jwks_uri": provider.url + "/keys"}
                )
                self.send_response(200)
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def published(self) -> dict[str, Any]:
        made = []
        for kid, key in self.keys.items():
            algorithm = (
                jwt.algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else jwt.algorithms.ECAlgorithm
            )
            made.append({**json.loads(algorithm.to_jwk(key.public_key())), "kid": kid, "use": "sig"})
        return {"keys": made}

    def claims(self, **changes: Any) -> dict[str, Any]:
        base = {"iss": self.url, "aud": AUDIENCE, "sub": "ada", "exp": int(time.time()) + 600, "hyblink_role": "search"}
        return {name: value for name, value in {**base, **changes}.items() if value is not None}

    def token(self, kid: str = "first", key: Any = None, algorithm: str = "RS256", **claims: Any) -> str:
        return jwt.encode(self.claims(**claims), key or self.keys[kid], algorithm=algorithm, headers={"kid": kid})


@pytest.fixture
def provider() -> Iterator[Provider]:
    made = Provider()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def client(provider: Provider, make_app: Callable[..., App]) -> Iterator[TestClient]:
    app = make_app(
        oidc=OidcSettings(issuer=provider.url, audience=AUDIENCE, collections_claim="collections"),
        api=ApiSettings(open_on_loopback=False, requests_per_minute=600),
    )
    with TestClient(create_api(app), base_url="http://127.0.0.1") as made:
        yield made


def whoami(client: TestClient, token: str) -> Any:
    return client.get("/v1/whoami", headers={"Authorization": f"Bearer {token}"})


def test_a_token_is_as_good_as_a_key(client: TestClient, provider: Provider) -> None:
    answer = whoami(client, provider.token(collections=["notes"], email="ada@example.org"))
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert (found["role"], found["collections"], found["note"]) == ("search", ["notes"], "ada@example.org")
    assert found["key"].startswith("oidc-")
    headers = {"Authorization": "Bearer " + provider.token(collections=["notes"], hyblink_role="admin")}
    assert client.post("/v1/collections", json={"name": "notes"}, headers=headers).status_code == 201
    headers = {"Authorization": "Bearer " + provider.token(collections=["notes"], hyblink_role="ingest")}
    documents = {"documents": [{"id": "a", "text": "b"}]}
    made = client.post("/v1/documents:bulk?collection=notes", json=documents, headers=headers)
    assert made.status_code == 200, made.text
    refused = client.post("/v1/documents:bulk?collection=others", json=documents, headers=headers)
    assert refused.status_code == 403
    assert client.get("/v1/admin/keys", headers=headers).status_code == 403
    admin = {
        "Authorization": "Bearer " + provider.token(collections="*", hyblink_role=["search", "admin"], email="e@x")
    }
    assert client.post("/v1/collections", json={"name": "new"}, headers=admin).status_code == 201
    files = {"content": b"{}", "params": {"name": "a.jsonl"}}
    assert client.post("/v1/uploads", headers=headers, **files).status_code == 201
    act = client.get("/v1/admin/audit", headers=admin).json()["acts"][0]
    assert act["by"].startswith("token:oidc-")
    assert act["by"].endswith(" e@x")
    assert provider.fetched == 1, "keys are kept"


def test_forgeries_are_refused_and_no_token_is_repeated(
    client: TestClient, provider: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    assert whoami(client, provider.token(collections="*")).status_code == 200
    public = provider.keys["first"].public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )  # fmt: skip
    stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    good = provider.token(collections="*").split(".")
    other = provider.token(collections="*", hyblink_role="admin").split(".")
    header = jwt.utils.base64url_encode(b'{"alg":"HS256","kid":"first"}').decode()
    signed = jwt.utils.base64url_encode(
        jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(f"{header}.{good[1]}".encode(), public)
    ).decode()
    now = int(time.time())
    tokens = {
        "signed by another": provider.token(key=stranger, collections="*"),
        "with the public key as a secret": f"{header}.{good[1]}.{signed}",
        "not signed": jwt.encode(provider.claims(), "", algorithm="none", headers={"kid": "first"}),
        "another's content": f"{good[0]}.{other[1]}.{good[2]}",
        "for another": provider.token(aud="shop", collections="*"),
        "of another issuer": provider.token(iss="https://example.org", collections="*"),
        "expired": provider.token(exp=now - 3600, collections="*"),
        "for ever": provider.token(exp=None, collections="*"),
        "not yet": provider.token(nbf=now + 3600, collections="*"),
        "of nobody": provider.token(sub=None, collections="*"),
        "of an unknown key": provider.token(kid="second", key=stranger, collections="*"),
        "no token": "a.b.c",
        "long": "a." + "b" * 20_000 + ".c",
        "empty": "..",
    }
    for what, token in tokens.items():
        answer = whoami(client, token)
        assert answer.status_code == 401, (what, answer.text)
        assert token not in answer.text
        assert token not in caplog.text, what
    for what, token in {
        "no role": provider.token(hyblink_role=None, collections="*"),
        "an unknown role": provider.token(hyblink_role="root", collections="*"),
        "a role that is no text": provider.token(hyblink_role={"admin": True}, collections="*"),
        "no collection": provider.token(hyblink_role="admin"),
    }.items():
        assert whoami(client, token).status_code == 403, what
    assert provider.fetched <= 2, "unknown keys do not make it ask again and again"


def test_keys_are_rotated_and_the_provider_may_be_away(
    client: TestClient, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider.down = True
    asked = provider.asked
    for _ in range(5):
        assert whoami(client, provider.token(collections="*")).status_code == 503
    assert provider.asked == asked + 1, "a provider that is down is not asked for every request"
    provider.down = False
    monkeypatch.setattr(oidc, "_AGAIN_S", 0.0)
    assert whoami(client, provider.token(collections="*")).status_code == 200
    old = provider.token(collections="*")
    provider.keys = {"second": ec.generate_private_key(ec.SECP256R1())}
    assert whoami(client, provider.token("second", algorithm="ES256", collections="*")).status_code == 200
    assert whoami(client, old).status_code == 401, "its key is not published any more"
    provider.down = True
    assert whoami(client, provider.token("second", algorithm="ES256", collections="*")).status_code == 200
    monkeypatch.setattr(oidc, "_STALE_S", 0.0)
    assert whoami(client, provider.token("second", algorithm="ES256", collections="*")).status_code == 503, "too old"
    monkeypatch.setattr(oidc, "_STALE_S", 3600.0)
    provider.down, provider.redirect = False, "http://127.0.0.1:9/keys"
    stranger = ec.generate_private_key(ec.SECP256R1())
    assert whoami(client, provider.token("third", stranger, "ES256", collections="*")).status_code == 401


def test_groups_become_roles_and_limits_hold_for_tokens(provider: Provider, make_app: Callable[..., App]) -> None:
    options = OidcSettings(
        issuer=provider.url, audience=AUDIENCE, jwks_url=provider.url + "/keys", role_claim="realm.groups",
        roles={"staff": "search", "librarians": "ingest"},
    )  # fmt: skip
    app = make_app(oidc=options, api=ApiSettings(open_on_loopback=False, requests_per_minute=3))
    with TestClient(create_api(app, host="0.0.0.0"), base_url="http://127.0.0.1") as client:
        token = provider.token(realm={"groups": ["guests", "librarians", "staff"]}, hyblink_role=None)
        assert whoami(client, token).json()["role"] == "ingest"
        assert whoami(client, provider.token(realm={"groups": ["admin"]})).status_code == 403
        again = [whoami(client, token).status_code for _ in range(4)]
        assert again.count(429) >= 1


@pytest.mark.parametrize(
    "changes",
    [
        {"issuer": "http://example.org"},
        {"issuer": "ftp://example.org"},
        {"issuer": "https://"},
        {"jwks_url": "http://example.org/keys"},
        {"audience": ""},
        {"roles": {"staff": "root"}},
    ],
)
def test_settings_that_would_not_be_safe(make_app: Callable[..., App], changes: dict[str, Any]) -> None:
    options = OidcSettings(**{"issuer": "https://example.org", "audience": AUDIENCE, **changes})
    with pytest.raises(InvalidInputError, match="oidc"):
        create_api(make_app(oidc=options))


def test_without_keys_and_provider_others_cannot_be_served(make_app: Callable[..., App]) -> None:
    with pytest.raises(ForbiddenError, match="refusing to listen"):
        create_api(make_app(), host="0.0.0.0")
