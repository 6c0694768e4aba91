"""The HTTP door: ordinary use, bad input, access."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.api import LOOPBACK, error

from hyblink.app.access.keys import KeyStore
from hyblink.app.api.application import create_api
from hyblink.app.api.limits import BodyMemory
from hyblink.app.application import App
from hyblink.app.core.errors import ForbiddenError, RateLimitedError
from hyblink.app.core.types.arrays import ScoreArray, TokenIdf
from hyblink.app.core.types.collections import CollectionSpec
from hyblink.app.core.types.ranking import TokenContribution
from hyblink.app.operations.collections import ensure_collection


def test_search_shows_its_reasons(client: TestClient) -> None:
    body = {"query": "alpha beta", "k": 5, "explain": True, "facets": ["colour"], "filter": {"exists": "colour"}}
    result = client.post("/v1/search", json=body).json()
    assert len(result["hits"]) == 5
    assert result["generation"] == "g000001"
    assert result["missing"] == []
    assert [leg["error"] for leg in result["legs"]] == ["", "", ""]
    assert result["facets"]["colour"]
    for hit in result["hits"]:
        assert "colour" in hit["metadata"]
        best = hit["passages"][0]
        assert sum(line["contribution"] for line in best["signals"]) == pytest.approx(best["score"], abs=1e-6)
        assert [line["signal"] for line in best["signals"]] == ["bm25", "vdr", "dense"]
        for span in best["highlights"]:
            assert 0 <= span["start"] < span["end"] <= len(best["text"])


class Lengths:
    """A cross-encoder that likes long passages."""

    id = "cross:lengths"

    def load(self) -> None:
        """Always ready."""

    def contributions(
        self, query: str, title: str, text: str, idf: TokenIdf | None = None
    ) -> tuple[TokenContribution, ...]:
        return ()

    def score(
        self, query: str, passages: Sequence[tuple[str, str]], deadline: float, idf: TokenIdf | None = None
    ) -> ScoreArray:
        return np.array([len(text) for _, text in passages], dtype=np.float32)


def test_re_ranking_is_asked_for_and_reported(app: App, client: TestClient) -> None:
    app.encoders.use_cross(Lengths())
    plain = client.post("/v1/search", json={"query": "alpha beta", "k": 20}).json()
    assert plain["rerank"] is None
    answer = client.post("/v1/search", json={"query": "alpha beta", "k": 20, "rerank": True}).json()
    report = answer["rerank"]
    assert (report["model"], report["scored"], report["skipped"], report["error"]) == ("cross:lengths", 50, 0, "")
    line = answer["hits"][0]["passages"][0]["signals"][-1]
    assert line["signal"] == "cross"
    assert line["raw"] == len(answer["hits"][0]["passages"][0]["text"])
    assert [hit["doc_id"] for hit in answer["hits"]] != [hit["doc_id"] for hit in plain["hits"]]
    few = client.post("/v1/search", json={"query": "alpha beta", "rerank": {"top": 3, "budget_ms": 500}}).json()
    assert few["rerank"]["asked"] == 3
    for bad in ("yes", {"top": 0}, {"budget_ms": -1}, {"depth": 3}, 1):
        refused = client.post("/v1/search", json={"query": "alpha", "rerank": bad})
        assert refused.status_code == 400, bad
        assert "rerank" in error(refused)["message"]


def test_pages_are_stable_and_depth_never_reorders(client: TestClient) -> None:
    def ids(k: int, offset: int) -> list[str]:
        answer = client.post("/v1/search", json={"query": "alpha gamma", "k": k, "offset": offset})
        return [hit["doc_id"] for hit in answer.json()["hits"]]

    whole = ids(100, 0)
    assert len(whole) == len(set(whole)) == 100
    paged = [doc for offset in range(0, 100, 10) for doc in ids(10, offset)]
    assert paged == whole
    for depth in (1, 7, 33):
        assert ids(depth, 0) == whole[:depth]


def test_documents_come_and_go(client: TestClient) -> None:
    document = {
        "id": "päth/with slash?#",
        "title": "T",
        "text": "needle 👍",
        "lang": "en",
        "metadata": {"a": [1 and "x"], "n": 1.5},
    }
    item = client.post("/v1/documents:bulk", json={"documents": [document]}).json()["items"][0]
    assert item["status"] == "created"
    url = "/v1/documents/p%C3%A4th%2Fwith%20slash%3F%23"
    assert client.get(url).json() == {**document, "sections": []}
    assert client.post("/v1/search", json={"query": "needle", "k": 1}).json()["hits"][0]["doc_id"] == document["id"]
    assert client.delete(url).json()["status"] == "deleted"
    assert error(client.get(url))["code"] == "not_found"
    assert error(client.delete(url))["code"] == "not_found"
    hits = client.post("/v1/search", json={"query": "needle", "signals": ["bm25"]}).json()["hits"]
    assert hits == []


def test_bulk_answers_item_by_item(client: TestClient) -> None:
    rows = [
        {"id": "one", "text": "x"}, {"id": "one", "text": "y"}, {"id": ""}, {"text": "no id"}, "not an object", None,
        {"id": "n", "text": "a\x00b"}, {"id": "m", "text": "x", "metadata": {"deep": {"er": 1}}},
        {"id": "u", "text": "x", "unknown": 1}, {"id": "e"}, {"id": "t", "text": 3}, {"id": "ok", "title": "only a title"},
    ]  # fmt: skip
    answer = client.post("/v1/documents:bulk", json={"documents": rows}).json()
    assert answer["errors"] is True
    statuses = [(item["status"], item["code"]) for item in answer["items"]]
    bad = ("rejected", "invalid_input")
    assert statuses == [
        ("created", ""),
        ("rejected", "duplicate_id"),
        bad,
        bad,
        bad,
        bad,
        bad,
        bad,
        bad,
        bad,
        bad,
        ("created", ""),
    ]
    assert all("expected" in item["message"] for item in answer["items"] if item["status"] == "rejected")


def test_why_not(client: TestClient) -> None:
    ranked = [h["doc_id"] for h in client.post("/v1/search", json={"query": "alpha", "k": 60}).json()["hits"]]

    def ask(doc: str, **more: object) -> dict:
        return client.post("/v1/explain", json={"query": "alpha", "document_id": doc, **more}).json()

    assert ask(ranked[0])["lost_at"] == "nothing"
    lost = ask(ranked[40])
    assert (lost["lost_at"], lost["rank"]) == ("page", 41)
    assert ask(ranked[0], filter={"term": {"colour": "no such"}})["lost_at"] == "filter"
    deep = ask(ranked[-1], candidates=10)
    assert deep["lost_at"] in {"candidates", "page"}
    assert all(leg["rank"] is None or leg["rank"] >= 1 for leg in deep["legs"])


BAD_SEARCHES = [
    ({"query": ""}, "query"), ({"query": "   "}, "empty"), ({"query": "x" * 100_001}, "query"), ({"query": "x" * 9000}, "too long"),
    ({"query": "a\x00b"}, "NUL"), ({"query": 3}, "query"), ({}, "query"), ({"query": "x", "k": 0}, "k"), ({"query": "x", "k": -1}, "k"),
    ({"query": "x", "k": 10**9}, "k"), ({"query": "x", "k": "10"}, "k"), ({"query": "x", "k": 10, "offset": 195}, "beyond the candidates"),
    ({"query": "x", "offset": -1}, "offset"), ({"query": "x", "unknown": 1}, "unknown"), ({"query": "x", "signals": []}, "signals"),
    ({"query": "x", "signals": ["bm25", "bm25"]}, "signals"), ({"query": "x", "signals": ["magic"]}, "signals"),
    ({"query": "x", "weights": {"bm25": -1}}, "weights"), ({"query": "x", "weights": {"bm25": 0}}, "weight"), ({"query": "x", "weights": {"magic": 1}}, "weights"),
    ({"query": "x", "weights": {"bm25": "1"}}, "weights"), ({"query": "x", "filter": {}}, "filter"), ({"query": "x", "filter": {"like": {"a": "b"}}}, "filter"),
    ({"query": "x", "candidates": 10**6}, "candidates"), ({"query": "x", "deadline_ms": 0}, "deadline_ms"), ({"query": "x", "fusion": "magic"}, "fusion"),
    ({"query": "x", "collection": "../etc"}, "collection"), ({"query": "x", "collection": "Nope"}, "collection"), ({"query": "x", "facets": ["a"] * 30}, "facets"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "word"), BAD_SEARCHES)
def test_bad_searches_are_refused_by_name(client: TestClient, body: dict, word: str) -> None:
    answer = client.post("/v1/search", json=body)
    assert answer.status_code == 400
    detail = error(answer)
    assert detail["code"] == "invalid_input"
    assert word in detail["message"]
    assert detail["expected"]


@pytest.mark.parametrize(
    "raw",
    [
        b'{"query": "\\ud800"}', b'{"query": "x", "weights": {"bm25": NaN}}', b'{"query": "x", "weights": {"bm25": Infinity}}',
        b'{"query": "x", "deadline_ms": 1e999}', b'{"query": "x"', b"", b"[]", b"null", b"\xff\xfe", b'{"query": "x", "k": 1.5}',
        b'{"query": "x", "filter": ' + b'{"not": ' * 500 + b'{"exists": "a"}' + b"}" * 501,
    ],
)  # fmt: skip
def test_bad_bodies_are_refused(client: TestClient, raw: bytes) -> None:
    answer = client.post("/v1/search", content=raw, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400, answer.text
    assert error(answer)["code"] == "invalid_input"


@pytest.mark.parametrize(
    "query",
    [
        "'; DROP TABLE documents; --", 'title:(a AND "b', "AND OR NOT", "[1 TO *]", "*", "?", "a~2^3", "\\", "/regex/", "👍🏽 👨‍👩‍👧", "مرحبا بالعالم",
        "\u202ertl\u202c", "\x01\x02\x1b[31m", "機械学習", "a" * 8000, "ﬁ", "\ufeff", "word " * 1600, "%s %d {0}", "<script>", "-1", "....",
    ],
)  # fmt: skip
def test_any_text_is_just_text(client: TestClient, query: str) -> None:
    answer = client.post("/v1/search", json={"query": query, "explain": True})
    assert answer.status_code == 200, answer.text
    explained = client.post("/v1/explain", json={"query": query, "document_id": "doc1"})
    assert explained.status_code == 200, explained.text


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(min_size=0, max_size=200))
def test_no_query_makes_a_500(client: TestClient, query: str) -> None:
    raw = json.dumps({"query": query, "k": 3, "explain": True}).encode()
    answer = client.post("/v1/search", content=raw, headers={"Content-Type": "application/json"})
    assert answer.status_code in {200, 400}, answer.text


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(json_values, json_values)
def test_no_filter_or_document_makes_a_500(client: TestClient, tree: object, document: object) -> None:
    headers = {"Content-Type": "application/json"}
    for path, body in [
        ("/v1/search", {"query": "alpha", "filter": tree}),
        ("/v1/documents:bulk?collection=fuzz", {"documents": [document, {"id": "x", "text": "y", "metadata": tree}]}),
    ]:
        answer = client.post(path, content=json.dumps(body).encode(), headers=headers)
        assert answer.status_code in {200, 400}, answer.text


def test_the_door_is_open_on_loopback_only(make_app: Callable[..., App]) -> None:
    app = make_app()
    with pytest.raises(ForbiddenError, match="without API keys"):
        create_api(app, host="0.0.0.0")
    with TestClient(create_api(app), base_url="http://evil.example") as client:
        answer = client.get("/v1/collections")
        assert answer.status_code == 403, "a rebound DNS name must not reach an open door"
    with TestClient(create_api(app), base_url=LOOPBACK) as client:
        for origin in ("http://evil.example", "null", "http://[", "https://127.0.0.1.evil.example"):
            for path in ("/v1/uploads?name=a.txt", "/v1/admin/judgements-from-clicks"):
                answer = client.post(path, content=b"x", headers={"Origin": origin})
                assert answer.status_code == 403, "a page from elsewhere must not use an open door"
        for origin in ("http://127.0.0.1:8080", "http://localhost:3000", "http://[::1]:1"):
            answer = client.get("/v1/collections", headers={"Origin": origin})
            assert answer.status_code == 403, "nor a page that another program on this machine serves"
        assert client.get("/v1/collections", headers={"Origin": LOOPBACK}).status_code == 200
        for host in ("", "127.0.0.1, evil.example", "127.0.0.1:80,evil.example", "localhost.evil.example"):
            assert client.get("/v1/collections", headers={"Host": host}).status_code == 403, host
        assert client.get("/v1/collections", headers=[("Host", "localhost"), ("Host", "evil")]).status_code == 403
        assert client.get("/healthz", headers={"Host": "evil.example"}).status_code == 200, "it tells nothing"


def test_the_door_closes_when_a_usable_key_exists(make_app: Callable[..., App]) -> None:
    """Else a proxy on this machine would publish an API for administrators."""
    app = make_app()
    with TestClient(create_api(app), base_url=LOOPBACK) as client:
        assert client.get("/v1/admin/keys").status_code == 200
        made = client.post("/v1/admin/keys", json={"role": "admin"}).json()["key"]
        assert client.get("/v1/admin/keys").status_code == 401
        headers = {"Authorization": f"Bearer {made}"}
        assert client.get("/v1/admin/keys", headers=headers).status_code == 200
        proxied = {**headers, "Host": "search.example", "Origin": "https://search.example"}
        assert client.get("/v1/admin/keys", headers=proxied).status_code == 200
        ready = client.get("/readyz").json()
        assert ready["collections"] == {}
        (key,) = client.get("/v1/admin/keys", headers=headers).json()["keys"]
        assert client.delete(f"/v1/admin/keys/{key['id']}", headers=headers).status_code == 200
        assert client.get("/v1/admin/keys").status_code == 200, "no key is usable"


def test_a_refused_body_is_not_read(make_app: Callable[..., App]) -> None:
    app = make_app()
    app_key = KeyStore(app.catalog.records()).create("search", "2026-01-01")
    api = create_api(app, host="0.0.0.0")
    asked: list[str] = []

    def post(path: str, headers: dict[str, str]) -> int:
        """The status, from a client that counts how often its body is asked for."""

        async def run() -> int:
            async def receive() -> dict[str, object]:
                asked.append(path)
                return {"type": "http.request", "body": b"x" * 1000, "more_body": True}

            sent: list[dict[str, object]] = []

            async def send(message: dict[str, object]) -> None:
                sent.append(message)

            scope = {
                "type": "http", "http_version": "1.1", "method": "POST", "path": path, "raw_path": path.encode(),
                "query_string": b"", "headers": [(k.lower().encode(), v.encode()) for k, v in headers.items()],
                "client": ("10.0.0.1", 1), "server": ("x", 80), "scheme": "http", "root_path": "", "state": {},
            }  # fmt: skip
            await api(scope, receive, send)  # type: ignore[arg-type]
            return int(str(sent[0]["status"]))

        return asyncio.run(run())

    json_type, key = {"Content-Type": "application/json"}, {"Authorization": f"Bearer {app_key}"}
    assert post("/v1/search", json_type) == 401
    assert post("/v1/documents:bulk", {**json_type, **key}) == 403
    assert post("/v1/search", {**key, "Content-Type": "text/plain"}) == 400
    assert post("/v1/search", {**key, **json_type, "Content-Length": str(2**30)}) == 413
    assert asked == []
    assert post("/v1/search", {**key, **json_type}) == 413, "an endless body"
    assert len(asked) > 1


def test_a_key_sees_its_own_collections_only(make_app: Callable[..., App]) -> None:
    app = make_app()
    ensure_collection(app, CollectionSpec("default"))
    key = KeyStore(app.catalog.records()).create("admin", "2026-01-01", ["elsewhere"])
    with TestClient(create_api(app, host="0.0.0.0"), base_url="http://search.example") as client:
        listed = client.get("/v1/collections", headers={"Authorization": f"Bearer {key}"}).json()
    assert listed == {"collections": []}


def test_a_leg_that_fails_is_missing_not_fatal(client: TestClient, app: App) -> None:
    from hyblink.app.core.errors import UnavailableError

    class Broken:
        id = app.encoders.default_dense.id
        dimension = app.encoders.default_dense.dimension

        def load(self) -> None:
            pass

        def encode_query(self, text: str) -> None:
            raise UnavailableError("the GPU fell off")

    app.encoders.add_dense(Broken())  # type: ignore[arg-type]
    result = client.post("/v1/search", json={"query": "alpha"}).json()
    assert result["hits"]
    assert result["missing"] == ["dense"]
    assert "the GPU fell off" in next(leg for leg in result["legs"] if leg["signal"] == "dense")["error"]
    alone = client.post("/v1/search", json={"query": "alpha", "signals": ["dense"]})
    assert alone.status_code == 503


def test_a_facet_that_is_no_text_is_refused(client: TestClient) -> None:
    body = json.dumps({"query": "alpha", "facets": ["\ud800"]})
    answer = client.post("/v1/search", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert "a facet holds a lone surrogate" in answer.text


def test_names_of_other_collections_are_not_told(make_app: Callable[..., App]) -> None:
    app = make_app()
    for name in ("mine", "secret"):
        ensure_collection(app, CollectionSpec(name))
        app.documents.bulk(name, [{"id": "1", "text": "alpha"}], encode=False)
    keys = KeyStore(app.catalog.records())
    made = {
        name: keys.create("ingest", "2026-01-01", collections)
        for name, collections in (("limited", ["mine", "missing"]), ("all", []), ("other", []))
    }
    with TestClient(create_api(app, host="0.0.0.0"), base_url="http://search.example") as client:

        def get(who: str, path: str, **options: Any) -> Any:
            return client.get(path, headers={"Authorization": f"Bearer {made[who]}"}, **options)

        assert 'collection="secret"' in get("all", "/metrics").text
        shown = get("limited", "/metrics").text
        assert 'collection="mine"' in shown
        assert "secret" not in shown
        for who, told in (("limited", "one of mine"), ("all", "one of mine, secret")):
            answer = get(who, "/v1/documents/1?collection=missing")
            assert (answer.status_code, answer.json()["error"]["expected"]) == (404, told)
        broken = app.settings.data_dir / "collections" / "secret"
        assert "secret" not in client.get("/readyz").text
        assert broken.parent.is_dir()
        # An upload belongs to the key that has sent it.
        sent = client.post(
            "/v1/uploads?name=a.txt", content=b"text", headers={"Authorization": f"Bearer {made['all']}"}
        ).json()["id"]
        for who, status in (("other", 404), ("limited", 404), ("all", 202)):
            answer = client.post(
                "/v1/jobs",
                json={"collection": "mine", "upload": sent},
                headers={"Authorization": f"Bearer {made[who]}"},
            )
            assert answer.status_code == status, (who, answer.text)


def test_strangers_fill_neither_the_audit_log_nor_the_metrics(make_app: Callable[..., App]) -> None:
    app = make_app()
    key = KeyStore(app.catalog.records()).create("admin", "2026-01-01")
    with TestClient(create_api(app, host="0.0.0.0"), base_url="http://search.example") as client:
        for number in range(50):
            assert client.post("/v1/admin/keys", json={}, headers={"x": "y"}).status_code == 401
            client.request(f"PWN{number}", f"/no/such/{number}")
        headers = {"Authorization": f"Bearer {key}"}
        acts = client.get("/v1/admin/audit", headers=headers).json()["acts"]
        assert [(act["by"], act["outcome"]) for act in acts] == [("unknown", "401")]
        shown = client.get("/metrics", headers=headers).text
        assert "PWN" not in shown
        assert len([line for line in shown.splitlines() if line.startswith("hyblink_requests_total{")]) < 8


def test_a_page_of_thousands_is_logged_in_part(client: TestClient, app: App) -> None:
    app.documents.bulk("default", [{"id": f"long-{n}", "text": f"gamma {n}"} for n in range(300)], encode=False)
    answer = client.post("/v1/search", json={"query": "gamma", "k": 300, "candidates": 400, "log": True}).json()
    assert len(answer["hits"]) == 300
    (page,) = [page for page in app.feedback.pages("default") if page.query == "gamma"]
    assert sorted(page.ranks.values()) == list(range(1, 101))
    assert answer["hits"][0]["doc_id"] in page.ranks
    clicked = client.post(
        "/v1/clicks", json={"search_id": answer["search_id"], "document_id": answer["hits"][0]["doc_id"]}
    )
    assert clicked.status_code == 200


def test_bytes_of_all_bodies_are_bounded() -> None:
    memory = BodyMemory(100)
    with memory.held() as first:
        first(500)  # one alone is let in, whatever its size
        with memory.held() as second:
            with pytest.raises(RateLimitedError, match="too many bytes are being received at once"):
                second(1)
            second(0)
    with memory.held() as first, memory.held() as second, memory.held() as third:
        for take in (first, second):
            for _ in range(5):
                take(10)
        with pytest.raises(RateLimitedError):
            third(1)
    with memory.held() as again:
        again(100)


def test_bodies_without_a_declared_length_hold_what_they_send(client: TestClient) -> None:
    """Proxies send bodies in chunks: many small ones at once are no flood."""

    def body() -> Iterator[bytes]:
        yield b'{"query": '
        yield b'"alpha"}'

    headers = {"Content-Type": "application/json"}
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: client.post("/v1/search", content=body(), headers=headers), range(12)))
    assert [answer.status_code for answer in answers] == [200] * 12
