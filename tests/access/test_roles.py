"""Every route of the schema by every kind of caller. A route that is new has to be put into the table first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from hyblink.app.access.keys import KeyStore
from hyblink.app.api.application import create_api
from hyblink.app.application import App
from hyblink.app.core.types.collections import CollectionSpec
from hyblink.app.linking.knowledge_base import entity_spec
from hyblink.app.operations.collections import ensure_collection
from hyblink.app.operations.jobs import start_ingestion

JOB, LETTER = "j20260101T000000000000-000000", "d20260101T000000000000-000000"
ALL, HERE, NOWHERE = "whole installation", "a collection", "none"
"""What a route concerns: keys of other collections may not at all, may not there, or do not matter."""
SEARCH = {"query": "b"}
DOCUMENT = {"documents": [{"id": "a", "text": "b"}]}
JUDGED = {"collection": "default", "judgements": [{"query": "b", "document_id": "a", "grade": 1}]}
TABLE: dict[tuple[str, str], tuple[str, str, Any]] = {
    ("post", "/v1/search"): ("search", HERE, SEARCH),
    ("post", "/v1/explain"): ("search", HERE, {"query": "b", "document_id": "a"}),
    ("post", "/v1/vocabulary"): ("search", HERE, {"text": "b"}),
    ("post", "/v1/documents:bulk"): ("ingest", HERE, DOCUMENT),
    ("get", "/v1/documents"): ("ingest", HERE, None),
    ("get", "/v1/documents:export"): ("ingest", HERE, None),
    ("post", "/v1/documents:delete"): ("ingest", HERE, {"collection": "default", "ids": ["nobody"]}),
    ("get", "/v1/documents/{document_id}"): ("search", HERE, None),
    ("get", "/v1/documents/{document_id}/source"): ("search", HERE, None),
    ("delete", "/v1/documents/{document_id}"): ("ingest", HERE, None),
    ("post", "/v1/link"): ("search", HERE, {"text": "b", "collection": "kb"}),
    ("post", "/v1/entities:bulk?collection=kb"): ("ingest", HERE, {"entities": [{"id": "e", "title": "E"}]}),
    ("get", "/v1/entities/{entity_id}/mentions?documents=default"): ("search", HERE, None),
    ("get", "/v1/entities/{entity_id}?collection=kb"): ("search", HERE, None),
    ("delete", "/v1/entities/{entity_id}?collection=kb"): ("ingest", HERE, None),
    ("get", "/v1/collections"): ("search", NOWHERE, None),
    ("post", "/v1/collections"): ("admin", HERE, {"name": "default"}),
    ("post", "/v1/collections/{name}:copy"): ("admin", HERE, {"name": "default"}),
    ("post", "/v1/collections/{name}:rename"): ("admin", HERE, {"name": "default"}),
    ("post", "/v1/collections/{name}:empty"): ("admin", HERE, None),
    ("delete", "/v1/collections/{name}"): ("admin", HERE, None),
    ("post", "/v1/uploads?name=a.jsonl"): ("ingest", NOWHERE, None),
    ("post", "/v1/jobs"): ("ingest", HERE, {"collection": "default", "package": "json"}),
    ("get", "/v1/jobs"): ("ingest", NOWHERE, None),
    ("get", "/v1/jobs/{job_id}"): ("ingest", NOWHERE, None),
    ("get", "/v1/jobs/{job_id}/rejects"): ("ingest", NOWHERE, None),
    ("post", "/v1/jobs/{job_id}/cancel"): ("ingest", NOWHERE, None),
    ("post", "/v1/jobs/{job_id}/resume"): ("ingest", NOWHERE, None),
    ("get", "/v1/admin/queues"): ("admin", ALL, None),
    ("get", "/v1/admin/dead-letters"): ("admin", ALL, None),
    ("post", "/v1/admin/dead-letters/{letter_id}/replay"): ("admin", ALL, None),
    ("post", "/v1/judgements"): ("ingest", HERE, JUDGED),
    ("get", "/v1/judgements"): ("ingest", HERE, None),
    ("delete", "/v1/judgements?query=b&document_id=a"): ("ingest", HERE, None),
    ("post", "/v1/clicks"): ("search", NOWHERE, {"search_id": "s", "document_id": "a"}),
    ("post", "/v1/admin/judgements-from-clicks"): ("admin", HERE, None),
    ("get", "/v1/admin/generations"): ("admin", HERE, None),
    ("post", "/v1/admin/generations"): ("admin", HERE, {"collection": "default"}),
    ("post", "/v1/admin/generations/{generation}/publish"): ("admin", HERE, None),
    ("post", "/v1/admin/rollback"): ("admin", HERE, None),
    ("post", "/v1/admin/retrain"): ("admin", HERE, {"collection": "default"}),
    ("post", "/v1/admin/retrain/{job_id}/approve"): ("admin", NOWHERE, None),
    ("get", "/v1/admin/retrain/schedule"): ("admin", HERE, None),
    ("put", "/v1/admin/retrain/schedule"): ("admin", HERE, {"collection": "default", "every_hours": 24}),
    ("delete", "/v1/admin/retrain/schedule"): ("admin", HERE, None),
    ("get", "/v1/admin/models"): ("admin", ALL, None),
    ("get", "/v1/whoami"): ("search", NOWHERE, None),
    ("get", "/v1/signals"): ("search", NOWHERE, None),
    ("get", "/v1/formats"): ("search", NOWHERE, None),
    ("get", "/v1/admin/keys"): ("admin", ALL, None),
    ("post", "/v1/admin/keys"): ("admin", ALL, {"role": "search"}),
    ("post", "/v1/admin/keys/{key_id}/rotate"): ("admin", ALL, None),
    ("delete", "/v1/admin/keys/{key_id}"): ("admin", ALL, None),
    ("get", "/v1/admin/audit"): ("admin", ALL, None),
    ("get", "/metrics"): ("search", NOWHERE, None),
    ("get", "/healthz"): ("anybody", NOWHERE, None),
    ("get", "/readyz"): ("anybody", NOWHERE, None),
}
RANK = {"search": 0, "ingest": 1, "admin": 2}


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from support.encoders import use_fake_encoder

    from hyblink.app.bootstrap import build
    from hyblink.app.core.settings import Settings

    app = build(Settings(data_dir=tmp_path_factory.mktemp("roles")))
    use_fake_encoder(app)
    ensure_collection(app, CollectionSpec("default"))
    ensure_collection(app, entity_spec("kb"))
    app.documents.bulk("default", [{"id": "a", "text": "b"}], encode=False)
    keys = KeyStore(app.catalog.records())
    made = {role: keys.create(role, "2026-01-01") for role in RANK}
    made |= {f"{role} elsewhere": keys.create(role, "2026-01-01", ["elsewhere"]) for role in RANK}
    made["revoked"] = keys.create("admin", "2026-01-01")
    keys.revoke(made["revoked"].split("_")[1])
    made["wrong"] = made["admin"][:-1] + ("A" if made["admin"][-1] != "A" else "B")
    with TestClient(create_api(app, host="0.0.0.0"), base_url="http://search.example") as client:
        yield app, client, made
    app.close()


def test_the_table_has_every_route(installation: Any) -> None:
    _, client, _ = installation
    schema = client.get("/openapi.json").json()["paths"]
    there = {(method, path) for path, methods in schema.items() for method in methods}
    assert {(method, path.partition("?")[0]) for method, path in TABLE} == there


@pytest.mark.parametrize(("method", "path"), list(TABLE), ids=lambda one: str(one))
def test_a_route_by_everybody(installation: Any, method: str, path: str) -> None:
    app, client, keys = installation
    least, concerns, body = TABLE[method, path]
    victim = KeyStore(app.catalog.records()).create("search", "2026-01-01").split("_")[1]
    names = {"document_id": "a", "entity_id": "e", "job_id": JOB, "letter_id": LETTER, "generation": "g000001"}
    if "{name}" in path:
        names["name"] = ensure_collection(app, CollectionSpec("spare")).name
    url = path.format(**names, key_id=victim)

    def ask(authorization: str | None) -> tuple[int, str]:
        headers = {} if authorization is None else {"Authorization": authorization}
        sent: dict[str, Any] = {"content": b"{}"} if "/uploads" in url else {"json": body}
        answer = client.request(method, url, headers=headers, **sent)
        return answer.status_code, answer.text

    if least == "anybody":
        assert ask(None)[0] == 200
        return
    strangers: dict[str, str | None] = {
        "nobody": None, "wrong": f"Bearer {keys['wrong']}", "revoked": f"Bearer {keys['revoked']}",
        "another scheme": f"Basic {keys['admin']}", "no scheme": keys["admin"], "empty": "Bearer ", "odd": "Bearer hyb__",
    }  # fmt: skip
    for who, header in strangers.items():
        assert ask(header)[0] == 401, who
    for role, rank in RANK.items():
        status, text = ask(f"Bearer {keys[role]}")
        refused = rank < RANK[least]
        assert (status == 403) == refused, (role, status, text)
        assert status not in {401, 500}, (role, status, text)
        elsewhere, text = ask(f"Bearer {keys[f'{role} elsewhere']}")
        assert (elsewhere == 403) == (refused or concerns in {HERE, ALL}), (role, "elsewhere", elsewhere, text)
        for secret in keys.values():
            assert secret not in text


def test_jobs_of_other_collections_are_not_seen(installation: Any) -> None:
    app, client, keys = installation
    job = start_ingestion(app, "default", {"package": "json"})
    assert app.jobs.wait(60)
    for path in (f"/v1/jobs/{job.id}", f"/v1/jobs/{job.id}/rejects"):
        assert client.get(path, headers={"Authorization": f"Bearer {keys['ingest elsewhere']}"}).status_code == 403
        assert client.get(path, headers={"Authorization": f"Bearer {keys['ingest']}"}).status_code == 200
    listed = client.get("/v1/jobs", headers={"Authorization": f"Bearer {keys['ingest elsewhere']}"}).json()
    assert listed == {"jobs": []}
    for act in ("cancel", "resume"):
        answer = client.post(f"/v1/jobs/{job.id}/{act}", headers={"Authorization": f"Bearer {keys['admin elsewhere']}"})
        assert answer.status_code == 403


def test_callers_cannot_name_their_limit_away(make_app: Callable[..., App]) -> None:
    app = make_app()
    key = KeyStore(app.catalog.records()).create("search", "2026-01-01", per_minute=3)
    headers = {"Authorization": f"Bearer {key}", "X-Request-Id": "always-the-same"}
    with TestClient(create_api(app), base_url="http://127.0.0.1") as client:
        statuses = [client.get("/v1/whoami", headers=headers).status_code for _ in range(5)]
    assert statuses == [200, 200, 200, 429, 429]


def test_who_may_not_call_is_refused_before_a_byte_of_the_body_is_read(make_app: Callable[..., App]) -> None:
    app = make_app()
    key = KeyStore(app.catalog.records()).create("search", "2026-01-01")
    api = create_api(app, host="0.0.0.0")
    asked: list[str] = []

    async def receive() -> dict[str, Any]:
        asked.append("the body")
        return {"type": "http.request", "body": b"x" * 65_536, "more_body": True}

    def post(path: str, *headers: tuple[bytes, bytes], megabytes: int = 30) -> int:
        sent: list[dict[str, Any]] = []

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        length = (b"content-length", str(megabytes * 2**20).encode())
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
            "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "client": ("10.0.0.1", 1),
            "server": ("search.example", 80), "state": {},
            "headers": [(b"host", b"search.example"), (b"content-type", b"application/json"), length, *headers],
        }  # fmt: skip
        asyncio.run(api(scope, receive, send))
        return int(sent[0]["status"])

    for path in ("/v1/documents:bulk", "/v1/search", "/v1/jobs", "/v1/link"):
        assert post(path) == 401, path
        assert post(path, (b"authorization", b"Bearer hyb_nobody_nothing")) == 401, path
    assert post("/v1/jobs", (b"authorization", f"Bearer {key}".encode())) == 403
    assert post("/v1/documents:bulk", megabytes=33) == 413, "more than anybody may send"
    assert asked == []
