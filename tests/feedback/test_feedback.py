"""Judgements and clicks: stored, exported, and what a click log says once ranks are corrected for."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from support.documents import random_documents

from hyblink.app.access.keys import KeyStore
from hyblink.app.api.application import create_api
from hyblink.app.application import App
from hyblink.app.core.errors import InvalidInputError
from hyblink.app.evaluation.beir import read_beir
from hyblink.app.feedback.click_model import ResultPage, fit_position_model
from hyblink.app.feedback.feedback import query_key, write_beir

LOOPBACK = "http://127.0.0.1"


@pytest.fixture
def client(app: App) -> Iterator[TestClient]:
    with TestClient(create_api(app), base_url=LOOPBACK, raise_server_exceptions=False) as client:
        assert client.post("/v1/documents:bulk", json={"documents": random_documents(60, seed=2)}).status_code == 200
        yield client


def simulated(
    queries: int, searches: int, seed: int
) -> tuple[list[ResultPage], dict[tuple[str, str], float], np.ndarray]:
    """Users look at rank k with 1 / k and click what attracts them; neighbours change places now and then."""
    draw = np.random.default_rng(seed)
    looks = 1 / np.arange(1, 11)
    pages, attraction = [], {}
    for query in range(queries):
        alpha, order = draw.uniform(0.05, 0.9, 10), draw.permutation(10)
        attraction |= {(f"q{query}", f"d{n}"): float(alpha[n]) for n in range(10)}
        for _ in range(searches):
            shown = order.copy()
            for at in draw.integers(0, 9, 2):
                shown[at], shown[at + 1] = shown[at + 1], shown[at]
            clicked = {f"d{n}" for at, n in enumerate(shown) if draw.random() < looks[at] * alpha[n]}
            pages.append(ResultPage(f"q{query}", {f"d{n}": at + 1 for at, n in enumerate(shown)}, frozenset(clicked)))
    return pages, attraction, looks


def test_the_click_model_finds_what_made_the_clicks() -> None:
    pages, attraction, looks = simulated(30, 200, seed=0)
    model = fit_position_model(pages)
    np.testing.assert_allclose(model.examination, looks, atol=0.08)
    found = np.array([model.attraction[key].probability for key in attraction])
    truth = np.array(list(attraction.values()))
    views, clicks = Counter(), Counter()
    for page in pages:
        views.update((page.query, one) for one in page.ranks)
        clicks.update((page.query, one) for one in page.clicked)
    plain = np.array([clicks[key] / views[key] for key in attraction])
    correlation, without = np.corrcoef(found, truth)[0, 1], np.corrcoef(plain, truth)[0, 1]
    assert correlation > 0.85
    assert without < 0.6, "clicks alone say where a hit stood"
    assert all(one.views == 200 for one in model.attraction.values())
    grades = model.grades(min_views=100)
    assert {max(one.values()) for one in grades.values()} == {3}
    assert model.grades(min_views=201) == {}


def test_a_click_log_with_nothing_in_it() -> None:
    with pytest.raises(InvalidInputError, match="no page was shown"):
        fit_position_model([])
    one = fit_position_model([ResultPage("q", {"a": 3, "b": 70}, frozenset())])
    assert one.grades(min_views=1) == {}
    assert one.examination[2] == 1.0


def test_judgements_are_replaced_withdrawn_and_exported(app: App, client: TestClient, tmp_path: Path) -> None:
    first = random_documents(60, seed=2)[0]["id"]
    rows = [
        {"query": "Alpha  beta", "document_id": first, "grade": 1},
        {"query": "alpha beta", "document_id": first, "grade": 3},
        {"query": "gamma", "document_id": "gone", "grade": 0},
    ]
    assert client.post("/v1/judgements", json={"judgements": rows}).json() == {"stored": 3}
    found = client.get("/v1/judgements").json()
    assert sorted(found["queries"].values()) == ["alpha beta", "gamma"]
    assert sorted(map(json.dumps, found["qrels"].values())) == sorted(map(json.dumps, [{"gone": 0}, {first: 3}]))
    gone = {"query": "gamma", "document_id": "gone"}
    assert client.delete("/v1/judgements", params=gone).status_code == 200
    assert client.delete("/v1/judgements", params=gone).status_code == 404
    queries, qrels = app.feedback.qrels("default")
    document = app.documents.get("default", first)
    write_beir(tmp_path / "out", queries, qrels, {first: (document.title, document.text)})
    assert read_beir(tmp_path / "out", "train") == (queries, qrels)
    with pytest.raises(InvalidInputError, match="not empty"):
        write_beir(tmp_path / "out", queries, qrels, {})


@pytest.mark.parametrize(
    "row",
    [
        {"query": "q", "document_id": "d", "grade": 4},
        {"query": "q", "document_id": "d", "grade": -1},
        {"query": "q", "document_id": "d", "grade": True},
        {"query": "q", "document_id": "d", "grade": "3"},
        {"query": "", "document_id": "d", "grade": 1},
        {"query": "  ", "document_id": "d", "grade": 1},
        {"query": "q" * 2001, "document_id": "d", "grade": 1},
        {"query": "q", "document_id": "", "grade": 1},
        {"query": "q\ud800", "document_id": "d", "grade": 1},
        {"query": "q", "grade": 1},
        {"query": "q", "document_id": "d", "grade": 1, "more": 1},
    ],
)
def test_bad_judgements_are_refused_and_nothing_is_stored(app: App, client: TestClient, row: dict) -> None:
    good = {"query": "q", "document_id": "good", "grade": 1}
    body = json.dumps({"judgements": [good, row]})
    answer = client.post("/v1/judgements", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400, answer.text
    assert app.feedback.judgements("default") == []


def test_clicks_refer_to_a_page_that_was_shown(client: TestClient) -> None:
    body = {"query": "alpha beta", "k": 5, "offset": 5, "log": True}
    page = client.post("/v1/search", json=body).json()
    assert page["search_id"]
    clicked = page["hits"][2]["doc_id"]
    one = {"search_id": page["search_id"], "document_id": clicked}
    for _ in range(2):
        assert client.post("/v1/clicks", json=one).json() == {"rank": 8}
    assert client.post("/v1/clicks", json={**one, "document_id": "nothing"}).status_code == 400
    assert client.post("/v1/clicks", json={**one, "search_id": "s1"}).status_code == 404
    assert client.post("/v1/search", json={"query": "alpha"}).json()["search_id"] == ""
    found = client.post("/v1/admin/judgements-from-clicks", params={"min_views": 1}).json()
    assert (found["searches"], found["clicks"], found["judged"]) == (1, 1, 5)


def test_what_people_judged_outlasts_the_clicks(app: App) -> None:
    pages, _, _ = simulated(3, 30, seed=1)
    for page in pages:
        search = app.feedback.log_impressions("default", page.query, page.ranks, generation="g000001")
        for document in page.clicked:
            app.feedback.click(search, document)
    app.feedback.judge("default", [{"query": "Q0", "document_id": "d1", "grade": 2}], source="person")
    assert sorted((one.query, sorted(one.clicked)) for one in app.feedback.pages("default")) == sorted(
        (one.query, sorted(one.clicked)) for one in pages
    )
    report, _ = app.feedback.judge_by_clicks("default", min_views=10)
    judged = app.feedback.judgements("default")
    assert report.judged == len(judged) - 1 == 29
    assert [(one.grade, one.source) for one in judged if (query_key(one.query), one.document_id) == ("q0", "d1")] == [
        (2, "person")
    ]
    assert app.feedback.judge_by_clicks("default", min_views=10)[0] == report, "made anew, not added to"
    app.feedback.judge_by_clicks("default", min_views=1000)
    assert [one.source for one in app.feedback.judgements("default")] == ["person"]
    assert app.feedback.tidy(keep_days=-1) == len(pages)
    assert app.feedback.pages("default") == []


def test_roles_for_feedback(app: App, make_app: Callable[..., App]) -> None:
    keys = KeyStore(app.catalog.records())
    made = {role: keys.create(role, "now") for role in ("search", "ingest", "admin")}
    elsewhere = {role: keys.create(role, "now", ["elsewhere"]) for role in ("search", "ingest", "admin")}
    search = app.feedback.log_impressions("default", "q", {"d": 1}, generation="g000001")
    with TestClient(create_api(app, host="0.0.0.0"), raise_server_exceptions=False) as client:
        routes = [
            ("POST", "/v1/judgements", {"json": {"judgements": []}}, "ingest"),
            ("GET", "/v1/judgements", {}, "ingest"),
            ("DELETE", "/v1/judgements?query=q&document_id=d", {}, "ingest"),
            ("POST", "/v1/clicks", {"json": {"search_id": search, "document_id": "d"}}, "search"),
            ("POST", "/v1/admin/judgements-from-clicks", {}, "admin"),
        ]
        ranks = ["search", "ingest", "admin"]
        for method, path, more, role in routes:
            assert client.request(method, path, **more).status_code == 401
            for at, mine in enumerate(ranks):
                for keyring, allowed in ((made, at >= ranks.index(role)), (elsewhere, False)):
                    headers = {"Authorization": f"Bearer {keyring[mine]}"}
                    status = client.request(method, path, headers=headers, **more).status_code
                    assert (status not in {401, 403}) == allowed, (path, mine, status)
