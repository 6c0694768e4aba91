"""Limits of requests; health, readiness, metrics."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from fastapi.testclient import TestClient
from support.api import LOOPBACK, error

from hyblink.app.api.application import create_api
from hyblink.app.application import App
from hyblink.app.core.settings import ApiSettings
from hyblink.app.core.types.collections import CollectionSpec
from hyblink.app.operations.collections import ensure_collection


def test_a_body_over_the_limit_is_refused(make_app: Callable[..., App]) -> None:
    app = make_app(api=ApiSettings(max_body_bytes=1000))
    with TestClient(create_api(app), base_url=LOOPBACK, raise_server_exceptions=False) as client:
        declared = client.post("/v1/search", json={"query": "x" * 2000})
        chunks = iter([b'{"query": "', b"x" * 900, b"x" * 900, b'"}'])
        streamed = client.post("/v1/search", content=chunks, headers={"Content-Type": "application/json"})
        for answer in (declared, streamed):
            assert answer.status_code == 413, answer.text
            assert error(answer)["code"] == "too_large"


def test_too_many_documents_are_refused(make_app: Callable[..., App]) -> None:
    app = make_app(api=ApiSettings(max_bulk_documents=2))
    with TestClient(create_api(app), base_url=LOOPBACK) as client:
        answer = client.post("/v1/documents:bulk", json={"documents": [{"id": str(n), "text": "x"} for n in range(3)]})
        assert answer.status_code == 413
        assert "at most 2" in error(answer)["expected"]


def held(real: Callable[..., Any]) -> tuple[Callable[..., Any], threading.Event, threading.Event]:
    """A function that waits before it does its work; what says that it was called, and what lets it go on."""
    entered, release = threading.Event(), threading.Event()

    def slow(*args: Any, **kwargs: Any) -> Any:
        entered.set()
        release.wait(10)
        return real(*args, **kwargs)

    return slow, entered, release


def test_too_many_searches_at_once(make_app: Callable[..., App]) -> None:
    app = make_app(api=ApiSettings(max_concurrent_searches=1))
    ensure_collection(app, CollectionSpec("default"))
    app.search.search, entered, release = held(app.search.search)  # type: ignore[method-assign]
    with TestClient(create_api(app), base_url=LOOPBACK) as client:
        first = threading.Thread(target=lambda: client.post("/v1/search", json={"query": "x"}))
        first.start()
        assert entered.wait(10)
        answer = client.post("/v1/search", json={"query": "x"})
        release.set()
        first.join()
        assert answer.status_code == 429
        assert answer.headers["Retry-After"] == "1"


def test_linking_requests_keep_no_search_waiting(make_app: Callable[..., App]) -> None:
    app = make_app(api=ApiSettings(max_concurrent_searches=1, max_concurrent_links=1))
    ensure_collection(app, CollectionSpec("default"))
    app.linker.link, entered, release = held(app.linker.link)  # type: ignore[method-assign]
    with TestClient(create_api(app), base_url=LOOPBACK) as client:
        body = {"text": "x", "collection": "default"}
        first = threading.Thread(target=lambda: client.post("/v1/link", json=body))
        first.start()
        assert entered.wait(10)
        assert "hyblink_links_running 1.0" in client.get("/metrics").text
        answer = client.post("/v1/link", json=body)
        search = client.post("/v1/search", json={"query": "x"})
        release.set()
        first.join()
        assert (answer.status_code, search.status_code) == (429, 200)
        assert answer.json()["error"]["message"].startswith("too many linking requests")


def test_health_ready_metrics_and_schema(client: TestClient, app: App) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    ready = next(r for r in (client.get("/readyz").json() for _ in range(1000)) if r["ready"])
    assert ready == {"ready": True, "problems": [], "degraded": [], "collections": {"default": "g000001"}}
    client.post("/v1/search", json={"query": "alpha"})
    metrics = client.get("/metrics").text
    assert 'hyblink_requests_total{method="POST",route="/v1/search",status="200"}' in metrics
    assert 'hyblink_search_stage_seconds_count{stage="legs"}' in metrics
    schema = client.get("/openapi.json").json()
    for path, operations in schema["paths"].items():
        for operation in operations.values():
            assert {"400", "500"} <= set(operation["responses"]), path
            assert "422" not in operation["responses"]


def test_not_ready_says_what_is_damaged(client: TestClient, app: App) -> None:
    path = app.catalog.engine("default").store.path
    app.catalog.close()
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    path.write_bytes(b"rubbish" * 5000)
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["problems"][-1] == "default: corruption"
    failed = client.post("/v1/search", json={"query": "alpha"})
    assert failed.status_code == 500
    assert error(failed)["code"] == "corruption"
