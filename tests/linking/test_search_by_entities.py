"""Search that knows entities: annotation, facets, filters, boosts, through every door."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from unittest.mock import patch

import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from hyblink.app.api.application import create_api
from hyblink.app.application import App
from hyblink.app.cli.main import cli
from hyblink.app.core.errors import NotFoundError
from hyblink.app.core.settings import LinkSettings
from hyblink.app.core.types.collections import Annotation, CollectionSpec
from hyblink.app.core.types.documents import Tier
from hyblink.app.core.types.linking import LinkRequest, LinkResult
from hyblink.app.core.types.search import ANNOTATED_WITH, LINKED_ENTITIES, SearchRequest, SearchResult
from hyblink.app.linking.knowledge_base import entity_spec
from hyblink.app.operations.annotation import annotate, annotate_always
from hyblink.app.operations.collections import ensure_collection

DOCUMENTS = [
    {
        "id": "zoo",
        "title": "At the zoo",
        "text": "The Python was asleep, a large snake behind glass.",
        "metadata": {"n": 1},
    },
    {"id": "code", "title": "Scripts", "text": "He wrote it in CPython and later in Lisp."},
    {"id": "plain", "title": "Nothing", "text": "A walk by the river and an old bridge."},
]
ALL = Annotation("entities", threshold=0.0)
ENTITIES = [
    {"id": "py", "title": "CPython", "aliases": ["the reference interpreter"], "description": "An interpreter."},
    {"id": "snake", "title": "Python", "description": "A large snake."},
    {"id": "lisp", "title": "Lisp", "description": "A language."},
]


@pytest.fixture
def client(app: App) -> Iterator[TestClient]:
    app.documents.bulk("default", DOCUMENTS)
    ensure_collection(app, entity_spec("entities"))
    app.entities.bulk("entities", ENTITIES)
    assert app.jobs.wait(60)
    with TestClient(create_api(app), base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        yield client


def search(client: TestClient, query: str, **body: object) -> dict:  # type: ignore[type-arg]
    answer = client.post("/v1/search", json={"query": query, "rerank": False, **body})
    assert answer.status_code == 200, answer.text
    return answer.json()  # type: ignore[no-any-return]


def test_annotation_writes_metadata_and_nothing_else(app: App, client: TestClient) -> None:
    before = app.catalog.engine("default").store.reader().counts()
    done = annotate(app, "default", ALL)
    assert (done.documents, done.changed, done.links, done.skipped) == (3, 3, 3, 0)
    assert app.documents.get("default", "code").metadata[LINKED_ENTITIES] == ["py", "lisp"]
    assert app.documents.get("default", "zoo").metadata == {
        "n": 1,
        LINKED_ENTITIES: ["snake"],
        ANNOTATED_WITH: "entities",
    }
    assert LINKED_ENTITIES not in app.documents.get("default", "plain").metadata
    after = app.catalog.engine("default").store.reader().counts()
    assert (after.passages, after.encoded) == (before.passages, before.encoded)  # nothing has to be encoded again
    assert annotate(app, "default", ALL).changed == 0
    facets = search(client, "it", facets=[LINKED_ENTITIES])["facets"][LINKED_ENTITIES]
    assert {one["value"]: one["count"] for one in facets} == {"lisp": 1, "py": 1, "snake": 1}
    app.entities.remove("entities", ["lisp"])
    assert annotate(app, "default", ALL).changed == 1  # what is no entity any more goes
    assert app.documents.get("default", "code").metadata[LINKED_ENTITIES] == ["py"]


def test_documents_are_annotated_as_they_come(app: App, client: TestClient) -> None:
    made = client.post("/v1/collections", json={"name": "notes", "annotate_with": "entities"})
    assert made.status_code == 201, made.text
    annotate_always(app, "notes", ALL)

    def linked(doc_id: str) -> object:
        assert app.jobs.wait(60)
        return app.documents.get("notes", doc_id).metadata.get(LINKED_ENTITIES)

    body = {"documents": [{"id": str(n), "text": f"Note {n} on {name}."} for n, name in enumerate(["Lisp", "trees"])]}
    assert client.post("/v1/documents:bulk?collection=notes", json=body).status_code == 200
    assert (linked("0"), linked("1")) == (["lisp"], None)
    # Sent again without what was added, it is annotated again.
    assert client.post("/v1/documents:bulk?collection=notes", json=body).status_code == 200
    assert linked("0") == ["lisp"]
    # What an ended process left waits in the store, and is taken up by the next that serves.
    annotate_always(app, "notes", None)
    app.documents.bulk("notes", [{"id": "2", "text": "A Python in a tree."}])
    assert linked("2") is None
    app.catalog.save_annotation("notes", ALL)
    with TestClient(create_api(app), base_url="http://127.0.0.1") as again:
        deadline = time.monotonic() + 60
        while again.get("/readyz").status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert linked("2") == ["snake"]
    missing = client.post("/v1/collections", json={"name": "more", "annotate_with": "nothing"})
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")
    assert "more" not in app.catalog.names()


def test_a_document_of_too_many_mentions_holds_up_no_other(make_app: Callable[..., App]) -> None:
    app = make_app("short", link=LinkSettings(max_mentions=4))
    ensure_collection(app, CollectionSpec("default"))
    app.documents.bulk("default", [*DOCUMENTS, {"id": "long", "text": "Lisp and Python, " * 5}], encode=False)
    ensure_collection(app, entity_spec("entities", dense_encoder="none"))
    app.entities.bulk("entities", ENTITIES, encode=False)
    done = annotate(app, "default", ALL)
    assert (done.documents, done.changed, done.links, done.skipped) == (4, 4, 3, 1)
    assert dict(app.documents.get("default", "long").metadata) == {ANNOTATED_WITH: "entities"}


def test_what_is_sent_while_it_is_annotated_stays(app: App, client: TestClient) -> None:
    changed = {"id": "code", "title": "Scripts", "text": "He wrote it in Lisp alone."}
    link = app.linker.link

    def slow(kb: str, request: LinkRequest) -> LinkResult:
        result = link(kb, request)
        app.documents.bulk("default", [changed])
        app.documents.delete("default", ["plain"])
        return result

    with patch.object(app.linker, "link", slow):
        assert annotate(app, "default", ALL).changed == 1
    document = app.documents.get("default", "code")
    assert (document.text, dict(document.metadata)) == (changed["text"], {})
    with pytest.raises(NotFoundError):
        app.documents.get("default", "plain")
    assert annotate(app, "default", ALL, waiting_only=True).changed == 1
    assert app.documents.get("default", "code").metadata[LINKED_ENTITIES] == ["lisp"]
    assert annotate(app, "default", ALL, waiting_only=True).documents == 0


def test_what_is_found_is_evidence_for_what_is_meant(app: App, client: TestClient) -> None:
    app.entities.bulk("entities", [{"id": "play", "title": "Python", "description": "A comedy troupe's stage play."}])
    app.documents.bulk(
        "default", [{"id": "night", "title": "A night out", "text": "The curtain rose, the Python began."}]
    )
    assert app.jobs.wait(60)
    annotate(app, "default", ALL)
    # As a reader would correct it; searching for the curtain finds this document first.
    night = app.documents.get("default", "night")
    meant = replace(night, metadata={**night.metadata, LINKED_ENTITIES: ["play"]})
    assert app.documents.update_metadata("default", [(night, meant)]) == 1

    def best(**more: object) -> dict:  # type: ignore[type-arg]
        body = {
            "text": "Python behind the curtain",
            "collection": "entities",
            "rerank": False,
            "threshold": 0.0,
            **more,
        }
        answer = client.post("/v1/link", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()["texts"][0]["links"][0]["candidates"][0]  # type: ignore[no-any-return]

    assert {line["signal"] for line in best()["signals"]} & {"evidence"} == set()
    found = best(evidence={"collection": "default", "hits": 1, "weight": 9.0})
    assert found["entity_id"] == "play"
    (line,) = [line for line in found["signals"] if line["signal"] == "evidence"]
    assert line["contribution"] == pytest.approx(9.0)
    assert found["utility"] == pytest.approx(sum(line["contribution"] for line in found["signals"]), abs=1e-6)
    use = {"kb": "entities", "threshold": 0.0, "evidence": 9.0}
    assert search(client, "the Python behind the curtain", entities=use)["entities"][0]["id"] in {"play", "snake"}
    for bad in ({"weight": -1}, {"hits": 0}, {"collection": "nothing"}, {"collection": "Ä"}):
        answer = client.post("/v1/link", json={"text": "Python", "collection": "entities", "evidence": bad})
        assert answer.status_code in {400, 404}, (bad, answer.text)


def test_evidence_is_not_sought_for_more_texts_than_are_read(
    app: App, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched: list[str] = []
    search_for = app.search.search

    def counting(collection: str, request: SearchRequest) -> SearchResult:
        searched.append(request.query)
        return search_for(collection, request)

    monkeypatch.setattr(app.search, "search", counting)
    evidence = {"collection": "default", "hits": 1}
    texts = [{"text": f"Python {n}", "mentions": []} for n in range(3000)]
    answer = client.post("/v1/link", json={"texts": [*texts, "Python"], "evidence": evidence})
    assert answer.status_code == 200, answer.text
    assert searched == ["Python"], "texts without mentions to link are not searched for"
    mentions = [{"mention": f"Python {n}"} for n in range(app.settings.link.max_texts + 1)]
    answer = client.post("/v1/link", json={"mentions": mentions, "evidence": evidence})
    assert answer.status_code == 413
    assert "too many texts to find evidence for" in answer.text
    assert len(searched) == 1


def test_a_query_s_entities_boost_with_a_line_of_their_own(app: App, client: TestClient) -> None:
    annotate(app, "default", ALL)
    query = "the reference interpreter"  # an alias that no document holds
    plain = search(client, query)
    assert plain["entities"] == []
    use = {"kb": "entities", "weight": 5.0, "threshold": 0.0}
    boosted = search(client, query, entities=use)
    assert [one["id"] for one in boosted["entities"]] == ["py"]
    assert boosted["hits"][0]["doc_id"] == "code"
    for hit in boosted["hits"]:
        passage = hit["passages"][0]
        assert passage["tier"] == Tier.FULL
        assert sum(line["contribution"] for line in passage["signals"]) == pytest.approx(passage["score"], abs=1e-6)
    lines = {line["signal"]: line for line in boosted["hits"][0]["passages"][0]["signals"]}
    assert lines["entity"]["raw"] == pytest.approx(boosted["entities"][0]["probability"], abs=1e-5)
    assert lines["entity"]["contribution"] > 0
    why = client.post("/v1/explain", json={"query": query, "document_id": "zoo", "entities": use}).json()
    assert "entity" in {line["signal"] for line in why["signals"]}


def test_a_query_s_entities_filter(app: App, client: TestClient) -> None:
    annotate(app, "default", ALL)
    use = {"kb": "entities", "mode": "filter", "threshold": 0.0}
    found = search(client, "Lisp or something", entities=use)
    assert [hit["doc_id"] for hit in found["hits"]] == ["code"]
    both = search(client, "Lisp or something", entities=use, filter={"term": {"n": 1}})
    assert both["hits"] == []
    none = search(client, "river bridge", entities=use)  # nothing mentioned: nothing filtered
    assert len(none["hits"]) == 3
    assert none["entities"] == []


def test_where_an_entity_is_mentioned(app: App, client: TestClient) -> None:
    annotate(app, "default", ALL)
    found = client.get("/v1/entities/py/mentions").json()
    assert found.pop("budget")["left_out"] == []
    assert found == {
        "documents": 1, "shown": [{"doc_id": "code", "title": "Scripts"}], "neighbours": [{"value": "lisp", "count": 1}],
    }  # fmt: skip
    nothing = client.get("/v1/entities/nobody/mentions").json()
    assert (nothing["documents"], nothing["shown"], nothing["neighbours"]) == (0, [], [])
    assert client.get("/v1/entities/py/mentions", params={"documents": "nowhere"}).status_code == 404


def test_bad_uses_are_named(client: TestClient) -> None:
    for use, status in (
        ({"kb": "nowhere"}, 404),
        ({"mode": "hide"}, 400),
        ({"weight": -1}, 400),
        ({"kb": "Bad!"}, 400),
    ):
        answer = client.post("/v1/search", json={"query": "x", "entities": use})
        assert answer.status_code == status, answer.text


def test_the_command(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    app.documents.bulk("default", DOCUMENTS, encode=False)
    ensure_collection(app, entity_spec("entities", dense_encoder="none"))
    app.entities.bulk("entities", ENTITIES, encode=False)
    app.close()
    monkeypatch.setenv("HYBLINK_DATA_DIR", str(app.settings.data_dir))
    made = CliRunner().invoke(cli, ["annotate", "-c", "default", "-k", "entities", "--threshold", "0", "--json"])
    assert made.exit_code == 0, made.output
    assert json.loads(made.stdout) == {"documents": 3, "changed": 3, "links": 3, "skipped": 0}
    again = CliRunner().invoke(cli, ["annotate", "-k", "entities", "--threshold", "0", "--always", "--json"])
    assert json.loads(again.stdout)["changed"] == 0
    catalog = app.catalog
    assert catalog.annotation("default") == ALL
    assert CliRunner().invoke(cli, ["annotate", "--no-more"]).exit_code == 0
    assert catalog.annotation("default") is None
    assert CliRunner().invoke(cli, ["annotate", "-k", "nothing", "--always"]).exit_code != 0
    for bad in (["--threshold", "3"], ["--threshold", "nan"], ["-c", "entities"]):
        assert CliRunner().invoke(cli, ["annotate", "-k", "entities", "--always", *bad]).exit_code == 2
        assert CliRunner().invoke(cli, ["annotate", "-k", "entities", *bad]).exit_code == 2
    assert catalog.annotation("entities") is None
    assert catalog.annotation("default") is None
