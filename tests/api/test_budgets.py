"""Requests that cost more than they may: what they get, what is said, and that they end when the client leaves."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from fastapi.testclient import TestClient
from support.api import LOOPBACK
from support.dearest import Measured, Request, Size, attacks, prepare, service

from hyblink.app.api.application import create_api
from hyblink.app.application import App
from hyblink.app.linking.knowledge_base import entity_spec
from hyblink.app.operations.collections import ensure_collection

DOCUMENTS = [{"id": f"d{at}", "title": f"Dog {at}", "text": "dogs bark at night " * 50} for at in range(60)]
ENTITIES = [{"id": f"e{at}", "title": f"Thing{at}", "description": "a thing", "aliases": ["Dog"]} for at in range(80)]


def client_with(app: App, **limits: float) -> TestClient:
    settings = app.settings.model_copy(update={"api": app.settings.api.model_copy(update=limits)})
    return TestClient(create_api(replace(app, settings=settings)), base_url=LOOPBACK)


@pytest.fixture
def filled(app: App) -> App:
    ensure_collection(app, entity_spec("entities"))
    assert not app.documents.bulk("default", DOCUMENTS).errors
    assert not app.entities.bulk("entities", ENTITIES).errors
    assert app.jobs.wait(60)
    return app


@pytest.fixture
def search_body() -> dict[str, object]:
    return {"query": "dogs that bark", "k": 60, "explain": True, "signals": ["bm25"]}


def test_every_answer_says_what_it_used(filled: App, search_body: dict[str, object]) -> None:
    with client_with(filled) as client:
        found = client.post("/v1/search", json=search_body).json()
        budget = found["budget"]
        assert (budget["cpu_s"], budget["left_out"]) == (10, [])
        assert 0 < budget["used_s"] < 10
        assert client.post("/v1/explain", json={"query": "dogs", "document_id": "d1"}).json()["budget"]["cpu_s"] == 10
        assert client.post("/v1/link", json={"text": "a Dog"}).json()["budget"]["left_out"] == []
    assert filled.search.search("default", _request()).budget is None  # not a request of the API


def _request():  # type: ignore[no-untyped-def]
    from hyblink.app.core.types.search import SearchRequest

    return SearchRequest("dogs")


def test_explanations_and_highlights_are_left_out_and_said(filled: App, search_body: dict[str, object]) -> None:
    with client_with(filled) as client:
        whole = client.post("/v1/search", json=search_body).json()
    with client_with(filled, request_plain_cpu_s=1e-6) as client:
        found = client.post("/v1/search", json=search_body).json()
    assert [hit["doc_id"] for hit in found["hits"]] == [hit["doc_id"] for hit in whole["hits"]]
    assert whole["hits"][0]["passages"][0]["highlights"]
    assert whole["hits"][0]["passages"][0]["signals"][0]["tokens"]
    assert not found["hits"][0]["passages"][0]["highlights"]
    assert not found["hits"][0]["passages"][0]["signals"][0]["tokens"]
    said = " ".join(found["budget"]["left_out"])
    assert "the tokens of signals" in said
    assert "highlights" in said


def test_hits_that_do_not_fit_are_said_with_the_way_to_them(filled: App, search_body: dict[str, object]) -> None:
    with client_with(filled) as client:
        whole = [hit["doc_id"] for hit in client.post("/v1/search", json=search_body).json()["hits"]]
    with client_with(filled, request_memory_bytes=200_000) as client:
        found = client.post("/v1/search", json={**search_body, "explain": False}).json()
        shown = len(found["hits"])
        assert 0 < shown < 60
        assert f"ask for them with offset {shown}" in found["budget"]["left_out"][0]
        got = [hit["doc_id"] for hit in found["hits"]]
        rest = client.post("/v1/search", json={**search_body, "offset": shown, "k": 60 - shown, "explain": False})
        got += [hit["doc_id"] for hit in rest.json()["hits"]]
    assert got == whole[: len(got)]
    assert len(got) > shown
    with client_with(filled, request_memory_bytes=1) as client:
        assert len(client.post("/v1/search", json=search_body).json()["hits"]) == 1


def test_mentions_that_are_not_reached_are_said(filled: App) -> None:
    texts = [f"the Dog and Thing{at}" for at in range(60)]
    with client_with(filled, request_cpu_s=2.02) as client:
        found = client.post("/v1/link", json={"texts": texts, "detectors": ["dictionary"]}).json()
    reasons = [link["reason"] for text in found["texts"] for link in text["links"]]
    said = " ".join(found["budget"]["left_out"])
    assert "not_reached" in reasons or "mentions in the texts from" in said
    if "not_reached" in reasons:
        left = reasons.count("not_reached")
        assert reasons[-left:] == ["not_reached"] * left
        assert f"candidates of {left} mentions" in said


def test_candidates_that_do_not_fit_are_said(filled: App) -> None:
    with client_with(filled, request_memory_bytes=600_000) as client:
        found = client.post("/v1/link", json={"texts": ["a Dog"] * 4, "shown": 80, "candidates": 80}).json()
    shown = [len(link["candidates"]) for text in found["texts"] for link in text["links"]]
    assert shown[0] > 1
    assert shown[-1] == 1
    assert "but the best" in found["budget"]["left_out"][0]


def test_a_text_that_cannot_be_read_out_is_refused(filled: App) -> None:
    with client_with(filled, request_cpu_s=1e-6, request_plain_cpu_s=1e-6) as client:
        answer = client.post("/v1/vocabulary", json={"text": "dogs " * 100})
        found = client.post("/v1/search", json={"query": "dogs", "k": 3}).json()
    assert answer.status_code in {200, 422}
    if answer.status_code == 422:
        assert answer.json()["error"]["code"] == "over_budget"
    assert len(found["hits"]) == 3  # words answer, whatever models may cost


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Measured]:
    folder = prepare(tmp_path_factory.mktemp("dearest") / "data", Size())
    with service(folder) as running:
        yield running


DEAREST = attacks(Size())


@pytest.mark.parametrize("name", DEAREST)
def test_the_dearest_requests_stay_within_the_shipped_budget(measured: Measured, name: str) -> None:
    request = DEAREST[name]
    cost = measured.cost(request)
    assert cost.status == 200, cost
    assert cost.memory <= (400e6 if request.dear else 200e6), cost
    assert cost.cpu_s <= (11 if request.dear else 2.2), cost


def test_a_request_ends_when_its_client_leaves(measured: Measured) -> None:
    request = DEAREST["10,000 mentions, 256 shown"]
    whole = measured.cost(request).cpu_s
    before = measured.cpu_s()
    _send_and_leave(measured, request, after_s=whole / 10)
    time.sleep(whole / 3 + 0.3)
    after = measured.cpu_s()
    assert after - before < whole * 0.7
    time.sleep(0.5)
    assert measured.cpu_s() - after < 0.2  # nothing works any more
    shown = measured.client.get("/metrics").text
    assert 'status="499"' in shown


def _send_and_leave(measured: Measured, request: Request, after_s: float) -> None:
    import json

    body = json.dumps(request.body).encode()
    url = measured.client.base_url
    with contextlib.closing(socket.create_connection((url.host, url.port or 80))) as connection:
        head = f"POST {request.path} HTTP/1.1\r\nHost: {url.host}:{url.port}\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        time.sleep(after_s)
