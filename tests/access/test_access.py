"""Keys over HTTP, the audit log, request limits and request ids."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from hyblink.app.access.keys import KeyStore
from hyblink.app.api.application import create_api
from hyblink.app.application import App
from hyblink.app.core.logs import request_id, set_up
from hyblink.app.core.settings import ApiSettings
from hyblink.app.core.types.collections import CollectionSpec
from hyblink.app.operations.collections import ensure_collection


@pytest.fixture
def served(make_app: Callable[..., App]) -> App:
    app = make_app(api=ApiSettings(requests_per_minute=50))
    ensure_collection(app, CollectionSpec("default"))
    return app


@pytest.fixture
def client(served: App) -> Iterator[TestClient]:
    served_keys = KeyStore(served.catalog.records())
    admin = served_keys.create("admin", "now", note="the first", per_minute=10_000)
    with TestClient(create_api(served, host="0.0.0.0"), raise_server_exceptions=False) as client:
        client.headers["Authorization"] = f"Bearer {admin}"
        yield client


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_a_key_lives_from_making_to_revoking(client: TestClient) -> None:
    made = client.post("/v1/admin/keys", json={"role": "search", "collections": ["default"], "note": "shop"})
    assert made.status_code == 201
    secret = made.json()["key"]
    key_id = secret.split("_")[1]
    search = {"json": {"query": "a"}}
    assert client.get("/v1/whoami").json() == {
        "key": client.headers["Authorization"].split("_")[1], "role": "admin", "collections": [], "note": "the first"
    }  # fmt: skip
    assert client.get("/v1/whoami", headers=bearer(secret)).json()["collections"] == ["default"]
    assert client.get("/v1/whoami", headers={"Authorization": "Bearer hyb_00000000_x"}).status_code == 401
    assert client.post("/v1/search", headers=bearer(secret), **search).status_code == 200
    assert client.post("/v1/search", headers=bearer(secret), json={"query": "a", "collection": "x"}).status_code == 403
    newer = client.post(f"/v1/admin/keys/{key_id}/rotate", params={"grace_s": 60}).json()["key"]
    assert [client.post("/v1/search", headers=bearer(one), **search).status_code for one in (secret, newer)] == [
        200
    ] * 2
    assert client.delete(f"/v1/admin/keys/{key_id}").json()["keys"][0]["revoked"] is True
    assert [client.post("/v1/search", headers=bearer(one), **search).status_code for one in (secret, newer)] == [
        401
    ] * 2
    assert client.post(f"/v1/admin/keys/{key_id}/rotate").status_code == 409
    listed = client.get("/v1/admin/keys")
    assert {one["note"] for one in listed.json()["keys"]} == {"the first", "shop"}
    for text in (listed.text, client.get("/v1/admin/audit").text):
        assert secret.split("_", 2)[2] not in text
        assert "sha256" not in text


@pytest.mark.parametrize(
    "body",
    [
        {"role": "root"},
        {},
        {"role": "search", "collections": ["../x"]},
        {"role": "search", "per_minute": -1},
        {"role": "search", "x": 1},
    ],
)
def test_bad_keys_are_refused(client: TestClient, body: dict[str, Any]) -> None:
    assert client.post("/v1/admin/keys", json=body).status_code == 400
    assert len(client.get("/v1/admin/keys").json()["keys"]) == 1


def test_the_audit_log_has_every_act_and_attempt(served: App, client: TestClient) -> None:
    searcher = KeyStore(served.catalog.records()).create("search", "now")
    client.post("/v1/collections", json={"name": "new"}, headers={"X-Request-Id": "my-own.id"})
    client.post("/v1/collections", json={"name": "new"})
    client.post("/v1/collections", json={"name": "other"}, headers=bearer(searcher))
    client.post("/v1/collections", json={"name": "other"}, headers={"Authorization": "Bearer hyb_00000000_x"})
    client.post("/v1/search", json={"query": "not an act"})
    acts = client.get("/v1/admin/audit").json()["acts"]
    admin = client.headers["Authorization"].split("_")[1]
    assert [(one["by"], one["act"], one["outcome"]) for one in acts] == [
        ("unknown", "POST /v1/collections", "401"),
        (f"key:{searcher.split('_')[1]}", "POST /v1/collections", "403"),
        (f"key:{admin}", "POST /v1/collections", "409"),
        (f"key:{admin}", "POST /v1/collections", "201"),
    ]
    assert acts[-1]["request_id"] == "my-own.id"
    assert client.get("/v1/admin/audit", params={"before": acts[0]["id"], "limit": 2}).json()["acts"] == acts[1:3]


def test_a_key_over_its_limit_is_told_when_to_come_back(served: App, client: TestClient) -> None:
    keys = KeyStore(served.catalog.records())
    one, two = keys.create("search", "now", per_minute=5), keys.create("search", "now")
    answers = [client.get("/v1/collections", headers=bearer(one)) for _ in range(8)]
    assert [answer.status_code for answer in answers] == [200] * 5 + [429] * 3
    assert 1 <= int(answers[-1].headers["Retry-After"]) <= 12
    assert answers[-1].json()["error"]["code"] == "rate_limited"
    statuses = [client.get("/v1/collections", headers=bearer(two)).status_code for _ in range(60)]
    assert statuses.count(200) >= 50, "the server's own limit"
    assert statuses[-1] == 429


def test_request_ids_go_from_header_to_log(client: TestClient, capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        set_up("INFO", "json")
        answer = client.get("/healthz", headers={"X-Request-Id": "abc-1"})
        assert answer.headers["X-Request-Id"] == "abc-1"
        made = client.get("/healthz", headers={"X-Request-Id": "bad\tid {}"}).headers["X-Request-Id"]
        assert len(made) == 16
        token = request_id.set("abc-2")
        logging.getLogger("x").warning("said %s", "so\nand so")
        request_id.reset(token)
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    (mine,) = [line for line in lines if line["logger"] == "x"]
    assert (mine["message"], mine["request_id"], mine["level"]) == ("said so\nand so", "abc-2", "WARNING")


def test_a_key_may_send_no_more_than_it_may(served: App, client: TestClient) -> None:
    made = client.post("/v1/admin/keys", json={"role": "ingest", "max_bytes": 500}).json()["key"]
    listed = {one["id"]: one["max_bytes"] for one in client.get("/v1/admin/keys").json()["keys"]}
    assert listed[made.split("_")[1]] == 500
    small, large = ({"documents": [{"id": "a", "text": "b" * size}]} for size in (100, 600))
    headers = bearer(made)
    assert client.post("/v1/documents:bulk", json=small, headers=headers).status_code == 200
    refused = client.post("/v1/documents:bulk", json=large, headers=headers)
    assert refused.status_code == 413
    assert "at most 500 bytes" in refused.text
    assert client.post("/v1/documents:bulk", json=large).status_code == 200, "others may"

    def parts() -> Iterator[bytes]:
        yield b"{" * 400
        yield b"{" * 400

    named = {"name": "a.jsonl"}
    assert client.post("/v1/uploads", params=named, content=b"{}", headers=headers).status_code == 201
    assert client.post("/v1/uploads", params=named, content=parts(), headers=headers).status_code == 413
    assert client.post("/v1/uploads", params=named, content=b"{" * 501, headers=headers).status_code == 413
    assert client.post("/v1/admin/keys", json={"role": "search", "max_bytes": -1}).status_code == 400
