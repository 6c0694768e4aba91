"""The linking doors over HTTP: ordinary use, bad input, access."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from hyblink.app.access.keys import KeyStore, Role
from hyblink.app.api.application import create_api
from hyblink.app.application import App

ENTITIES = [
    {"id": "json.dump", "title": "json.dump", "aliases": ["dump"], "description": "Serialize to a file.", "kind": "function"},
    {"id": "pickle.dump", "title": "pickle.dump", "aliases": ["dump"], "description": "Write a pickle.", "kind": "function"},
    {"id": "json", "title": "json", "description": "JSON encoder and decoder.", "kind": "module"},
    {"id": "a/b c", "title": "Slash", "description": "An id that has to be quoted."},
]  # fmt: skip


@pytest.fixture
def client(app: App) -> Iterator[TestClient]:
    with TestClient(create_api(app), base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        answer = client.post("/v1/entities:bulk", json={"entities": ENTITIES})
        assert answer.status_code == 200, answer.text
        assert not answer.json()["errors"]
        assert app.jobs.wait(60)
        yield client


def link(client: TestClient, **body: object) -> dict:  # type: ignore[type-arg]
    answer = client.post("/v1/link", json={"threshold": 0.0, "rerank": False, **body})
    assert answer.status_code == 200, answer.text
    return answer.json()  # type: ignore[no-any-return]


def test_a_text_several_texts_and_mentions(client: TestClient) -> None:
    text = "\U0001f40d write it with `dump` and read it with json"
    one = link(client, text=text)
    assert [text[a["mention"]["start"] : a["mention"]["end"]] for a in one["texts"][0]["links"]] == ["dump", "json"]
    assert one["texts"][0]["links"][1]["entity_id"] == "json"
    assert {"generation", "profile", "calibrated", "threshold", "timings_ms", "missing"} <= set(one)
    several = link(client, texts=[text, {"text": text, "mentions": [{"start": 17, "end": 21, "text": "dump"}]}])
    assert several["texts"][0] == one["texts"][0]
    assert [a["mention"]["detector"] for a in several["texts"][1]["links"]] == ["given"]
    alone = link(client, mentions=[{"context_left": "read it with ", "mention": "json", "context_right": "."}])
    assert alone["texts"][0]["links"][0]["entity_id"] == "json"
    without = link(client, text="json", exclude=["json"])
    assert without["texts"][0]["links"][0]["entity_id"] != "json"
    filtered = link(client, text="dump", filter={"term": {"kind": "module"}}, shown=9)
    assert [c["entity_id"] for c in filtered["texts"][0]["links"][0]["candidates"]] == ["json"]


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({}, 400, "one form of input"),
        ({"text": "a", "texts": ["a"]}, 400, "one form of input"),
        ({"texts": [{"text": "abc", "mentions": [{"start": 0, "end": 4}]}]}, 400, "bad mention"),
        ({"texts": [{"text": "abc", "mentions": [{"start": 2, "end": 1}]}]}, 400, "bad mention"),
        (
            {"texts": [{"text": "\U0001f40dab", "mentions": [{"start": 2, "end": 4, "text": "ab"}]}]},
            400,
            "not what stands",
        ),
        ({"text": "a", "detectors": ["oracle"]}, 400, "unknown detector"),
        ({"text": "a", "colour": "red"}, 400, "colour"),
        ({"text": "a", "threshold": 2}, 400, "threshold"),
        ({"text": "a", "collection": "nowhere"}, 404, "no such collection"),
        ({"text": "a\x00"}, 400, "NUL"),
        ({"text": "a" * 1_000_001}, 413, "too long"),
        ({"texts": ["a"] * 1001}, 413, "too many texts"),
    ],
)
def test_bad_requests(client: TestClient, body: dict, status: int, message: str) -> None:  # type: ignore[type-arg]
    answer = client.post("/v1/link", json=body)
    assert answer.status_code == status, answer.text
    assert message in answer.json()["error"]["message"]


def test_bodies_without_their_form_are_told_what_is_wrong(client: TestClient) -> None:
    def error(content: bytes, content_type: str | None = "application/json") -> dict:  # type: ignore[type-arg]
        headers = {"content-type": content_type} if content_type else {}
        answer = client.post("/v1/link", content=content, headers=headers)
        assert answer.status_code == 400, answer.text
        found: dict = answer.json()["error"]  # type: ignore[type-arg]
        return found

    assert error(b'{"text": "a",}')["message"].startswith("the body is not JSON at character 13")
    plain = error(b'{"text": "a"}', "text/plain")
    assert (plain["received"], plain["expected"].partition(";")[0]) == (
        "Content-Type: text/plain", "Content-Type: application/json",
    )  # fmt: skip
    typed = error(b'{"texts": [{"text": "a", "mentions": [{"start": "x", "end": 1}]}]}')
    assert typed["message"] == "texts.0.mentions.0.start: Input should be a valid integer"
    assert (typed["received"], typed["expected"].partition(";")[0]) == ("'x'", "a valid integer")
    wanted = error(b'{"mentions": [{"context_left": "a"}]}')
    assert wanted["message"] == "mentions.0.mention: Field required"


def test_ten_thousand_mentions_in_contexts(client: TestClient) -> None:
    mentions = [{"context_left": "", "mention": "json", "context_right": ""}] * 1_200
    body = {"mentions": mentions, "threshold": 0, "shown": 0, "candidates": 1}
    assert len(link(client, **body)["texts"]) == 1_200


def test_entities_come_change_and_go(client: TestClient) -> None:
    quoted = "/v1/entities/a%2Fb%20c"
    assert client.get(quoted).json()["title"] == "Slash"
    changed = {"id": "a/b c", "title": "Solidus", "aliases": ["virgule"]}
    items = client.post("/v1/entities:bulk", json={"entities": [changed, {"id": "x"}]}).json()["items"]
    assert [item["status"] for item in items] == ["updated", "rejected"]
    assert "title" in items[1]["message"]
    assert link(client, text="a virgule")["texts"][0]["links"][0]["entity_id"] == "a/b c"
    assert link(client, text="a slash")["texts"][0]["links"] == []
    assert client.delete(quoted).json()["status"] == "deleted"
    assert client.delete(quoted).status_code == 404
    assert client.get(quoted).status_code == 404
    assert link(client, text="a virgule")["texts"][0]["links"] == []


def test_documents_and_entities_keep_apart(client: TestClient) -> None:
    kinds = {one["name"]: one["kind"] for one in client.get("/v1/collections").json()["collections"]}
    assert kinds == {"default": "passages", "entities": "entities"}
    documents = client.post("/v1/documents:bulk?collection=entities", json={"documents": [{"id": "1", "text": "x"}]})
    assert documents.status_code == 409
    entities = client.post("/v1/entities:bulk?collection=default", json={"entities": ENTITIES})
    assert entities.status_code == 409
    client.post("/v1/documents:bulk", json={"documents": [{"id": "1", "text": "x"}]})
    assert client.delete("/v1/entities/1?collection=default").status_code == 409
    assert client.get("/v1/documents/1").status_code == 200
    made = client.post("/v1/collections", json={"name": "kb", "kind": "entities"})
    assert (made.status_code, made.json()["kind"]) == (201, "entities")
    assert client.post("/v1/entities:bulk?collection=kb", json={"entities": ENTITIES}).status_code == 200


def test_roles(app: App) -> None:
    keys = KeyStore(app.catalog.records())
    tokens = {role: keys.create(role.value, "now") for role in Role}
    with TestClient(create_api(app, host="0.0.0.0"), base_url="http://127.0.0.1") as client:

        def status(method: str, path: str, role: Role, **options: object) -> int:
            headers = {"Authorization": f"Bearer {tokens[role]}"}
            return client.request(method, path, headers=headers, **options).status_code  # type: ignore[arg-type]

        assert client.post("/v1/link", json={"text": "a"}).status_code == 401
        assert status("POST", "/v1/entities:bulk", Role.SEARCH, json={"entities": ENTITIES}) == 403
        assert status("POST", "/v1/entities:bulk", Role.INGEST, json={"entities": ENTITIES}) == 200
        assert status("POST", "/v1/link", Role.SEARCH, json={"text": "json"}) == 200
        assert status("DELETE", "/v1/entities/json", Role.SEARCH) == 403
        assert status("DELETE", "/v1/entities/json", Role.INGEST) == 200


def test_links_are_counted(client: TestClient) -> None:
    link(client, text="json and dump")
    shown = client.get("/metrics").text
    assert 'hyblink_links_total{reason="linked"} 2.0' in shown
    assert 'stage="link_candidates"' in shown
