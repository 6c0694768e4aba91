"""Documents are listed, exported and deleted through the API; collections are copied, renamed, emptied and removed."""

from __future__ import annotations

import json

from fastapi.testclient import TestClient
from support.api import client, error

__all__ = ["client"]
BLUE = {"term": {"colour": "beta"}}


def test_documents_are_listed_by_pages_and_filter(client: TestClient) -> None:
    seen: list[str] = []
    after = ""
    while True:
        page = client.get("/v1/documents", params={"limit": 40, "after": after}).json()
        assert page["total"] == 150
        seen += [one["id"] for one in page["documents"]]
        after = page["next"]
        if not after:
            break
    assert seen == sorted(f"doc{n}" for n in range(150))
    blue = client.get("/v1/documents", params={"filter": json.dumps(BLUE), "limit": 1000}).json()
    assert 0 < blue["total"] < 150
    assert {one["metadata"]["colour"] for one in blue["documents"]} == {"beta"}
    first = blue["documents"][0]
    assert first["characters"] == len(client.get(f"/v1/documents/{first['id']}").json()["text"])
    for bad in ("{", '{"nonsense": 1}', "[]"):
        assert error(client.get("/v1/documents", params={"filter": bad}))["code"] == "invalid_input"


def test_an_export_can_be_ingested_again(client: TestClient) -> None:
    structured = {"id": "s", "text": "a\n\nb", "sections": [{"start": 0, "path": ["A"], "place": ""}]}
    client.post("/v1/documents:bulk", json={"documents": [structured]})
    answer = client.get("/v1/documents:export")
    assert answer.headers["content-type"] == "application/x-ndjson"
    rows = [json.loads(line) for line in answer.text.splitlines()]
    assert len(rows) == 151
    again = client.post("/v1/documents:bulk", params={"collection": "again"}, json={"documents": rows}).json()
    assert not again["errors"]
    for row in rows[:5] + rows[-1:]:
        path = f"/v1/documents/{row['id']}"
        assert client.get(path, params={"collection": "again"}).json() == client.get(path).json()
    few = client.get("/v1/documents:export", params={"filter": json.dumps(BLUE)}).text.splitlines()
    assert len(few) == client.get("/v1/documents", params={"filter": json.dumps(BLUE)}).json()["total"]


def test_documents_are_deleted_by_filter_or_ids(client: TestClient) -> None:
    total = client.get("/v1/documents", params={"filter": json.dumps(BLUE)}).json()["total"]
    told = client.post("/v1/documents:delete", json={"filter": BLUE, "dry_run": True}).json()
    assert (told["deleted"], len(told["ids"]), told["dry_run"]) == (total, total, True)
    assert client.get("/v1/documents").json()["total"] == 150
    assert client.post("/v1/documents:delete", json={"filter": BLUE}).json()["deleted"] == total
    left = [one["id"] for one in client.get("/v1/documents").json()["documents"]][:2]
    gone = client.post("/v1/documents:delete", json={"ids": [*left, "nobody", left[0]]}).json()
    assert (gone["deleted"], gone["ids"]) == (2, left)
    assert client.get("/v1/documents").json()["total"] == 148 - total
    for bad in ({}, {"ids": ["a"], "filter": BLUE}):
        assert error(client.post("/v1/documents:delete", json=bad))["message"] == "what to delete?"


def test_collections_are_copied_renamed_emptied_and_removed(client: TestClient) -> None:
    def names() -> set[str]:
        return {one["name"] for one in client.get("/v1/collections").json()["collections"]}

    def found(name: str) -> list[str]:
        body = {"collection": name, "query": "alpha beta", "signals": ["bm25"]}
        return [hit["doc_id"] for hit in client.post("/v1/search", json=body).json()["hits"]]

    before = found("default")
    assert client.post("/v1/collections/default:copy", json={"name": "two"}).json() == {"name": "two", "documents": 150}
    assert found("two") == before
    assert error(client.post("/v1/collections/default:copy", json={"name": "two"}))["code"] == "conflict"
    assert error(client.post("/v1/collections/nobody:copy", json={"name": "three"}))["code"] == "not_found"
    assert client.post("/v1/collections/two:rename", json={"name": "three"}).status_code == 200
    assert names() == {"default", "three"}
    assert found("three") == before
    assert client.post("/v1/collections/three:empty").json() == {"name": "three", "documents": 150}
    assert found("three") == []
    assert client.delete("/v1/collections/three").json() == {"name": "three", "documents": 0}
    assert names() == {"default"}
    assert error(client.delete("/v1/collections/three"))["code"] == "not_found"
    assert found("default") == before
