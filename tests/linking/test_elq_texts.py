"""Texts that a span head learns from."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from typer.testing import CliRunner

from hyblink.app.bootstrap import build
from hyblink.app.cli.main import cli
from hyblink.app.core.errors import InvalidInputError
from hyblink.app.core.settings import Settings
from hyblink.app.core.types.collections import CollectionSpec
from hyblink.app.core.types.documents import DocId, Document
from hyblink.app.core.types.linking import Mention, MentionContext
from hyblink.app.evaluation.linking.mentions import JudgedMention
from hyblink.app.linking.knowledge_base import entity_spec
from hyblink.app.operations.collections import ensure_collection
from hyblink.training.linking.distant import distant_row
from hyblink.training.linking.spans import context_rows, joined_rows, place_of, read_spans
from hyblink.training.linking.vectors import EntityVectors
from tests.support.elq import (
    ENTITIES,
    app,  # noqa: F401 - a fixture
)


def test_mentions_are_put_back_where_they_stood() -> None:
    text = "Lisp. A Lisp is like Lisp."
    row = JudgedMention("lisp:9", MentionContext("Lisp. A Lisp is like", "Lisp", "."), "lisp")
    assert place_of(text, row) == (21, 25)
    assert place_of(text, JudgedMention("x", MentionContext("nowhere", "Lisp", ""), "lisp")) is None
    (made,) = joined_rows([row], lambda one: one.id.partition(":")[0], {"lisp": text}, lambda _: [(0, 4), (21, 25)])
    assert (made.spans, made.ignored, made.positives[0].id) == (((21, 25),), ((0, 4),), "lisp")


def test_mentions_of_one_context_are_one_text() -> None:
    rows = [
        JudgedMention("t:1:0", MentionContext("Games. City:", "Atlanta", "; Event: Men 's doubles;"), "atl"),
        JudgedMention("t:1:1", MentionContext("Games. City: Atlanta; Event:", "Men", "'s doubles"), "men"),
        JudgedMention("t:2:0", MentionContext("Games. City:", "Sydney", ""), "syd"),
    ]
    made = context_rows(rows, lambda text: [(0, 5)])
    assert [(one.id, [one.query[a:b] for a, b in one.spans]) for one in made] == [
        ("t:1:0", ["Atlanta", "Men"]),
        ("t:2:0", ["Sydney"]),
    ]
    assert [one.id for one in made[0].positives] == ["atl", "men"]
    assert made[0].ignored == ((0, 5),)


def _taught(text: str) -> tuple[dict[str, str], list[str]] | None:
    """What distant supervision takes for mentions, with what they mean, and what it leaves out of the loss."""
    known = {
        "Etgar Keret": ["keret"], "Rush": ["band"], "Geoffrey Rush": ["rush"], "Texas": ["texas"],
        "University of Texas": ["ut"], "film": ["film"], "Paris": ["town", "myth"], "Keret": ["keret"], "Apollo": ["god"],
        "json.dump": ["json.dump"], "read_text": ["read_text"], "dump": ["dump"],
    }  # fmt: skip

    def names_in(text: str) -> list[tuple[int, int]]:
        return sorted((one.start(), one.end()) for name in known for one in re.finditer(rf"\b{name}\b", text))

    def detect(text: str) -> list[Mention]:
        made: list[Mention] = []
        for start, end in sorted(names_in(text), key=lambda one: (one[0], -one[1])):
            if not made or start >= made[-1].end:
                made.append(Mention(start, end, text[start:end]))
        return made

    row = distant_row("x", text, detect, names_in, lambda name: known[name])
    if row is None:
        return None
    assert row.id == "x"
    assert row.query == text
    spans = zip(row.spans, row.positives, strict=True)
    return {text[a:b]: one.id for (a, b), one in spans}, [text[a:b] for a, b in row.ignored]


def test_proper_names_of_one_entity_are_mentions_that_nobody_judged() -> None:
    made = _taught(
        "The film was written by Etgar Keret with Geoffrey Rush's help, in Paris, at the University of Texas."
    )
    assert made == (
        {"Etgar Keret": "keret", "Geoffrey Rush": "rush", "University of Texas": "ut"},
        ["film", "Paris"],  # a common noun may be one, a name of two entities is one of either; "Rush" alone is none
    )
    made = _taught("json.dump is beside read_text, and a dump may be large.")
    assert made == ({"json.dump": "json.dump", "read_text": "read_text"}, ["dump"])


@pytest.mark.parametrize(
    "text",
    [
        "He works for the Bank of Texas.",  # part of a longer name
        "Young Etgar Keret wrote.",  # as far as one can see
        "The rocket Apollo 11 flew.",
        "Texas is large.",  # any first word has a capital
        "It said: Rush!",
        "in paris and texas we saw a film",
        "",
    ],
)
def test_what_is_not_certain_teaches_nothing(text: str) -> None:
    assert _taught(text) is None


def test_texts_that_nobody_judged_are_written_for_a_head_to_learn(tmp_path: Path) -> None:
    environment = {"HYBLINK_DATA_DIR": str(tmp_path / "data")}
    app = build(Settings(data_dir=tmp_path / "data"))
    ensure_collection(app, entity_spec("kb"))
    unix = {"id": "unix2", "title": "Unix", "description": "The same name once more, and Bell Labs again."}
    labs = {"id": "labs", "title": "Bell Labs", "description": "Where Unix and much else was made."}
    app.entities.bulk("kb", [*ENTITIES, unix, labs], encode=False)
    ensure_collection(app, CollectionSpec("empty"))
    ensure_collection(app, CollectionSpec("notes"))
    app.documents.upsert(
        "notes", [Document(DocId("n"), "In those years we visited Bell Labs, which had Lisp.")], encode=False
    )
    app.close()

    def written(*options: str) -> dict[str, list[str]]:
        out = tmp_path / f"{len(list(tmp_path.iterdir()))}.jsonl"
        made = CliRunner().invoke(cli, ["kb", "distant", "-k", "kb", "--out", str(out), *options], env=environment)
        assert made.exit_code == 0, made.output
        return {row.id: [row.query[a:b] for a, b in row.spans] for row in read_spans(out)}

    assert written() == {"unix": ["Bell Labs"], "unix2": ["Bell Labs"]}  # "Unix" may be either
    assert len(written("--limit", "1")) == 1
    assert written("-c", "notes") == {"n#0": ["Bell Labs", "Lisp"]}
    nothing = ["kb", "distant", "-k", "kb", "-c", "empty", "--out", str(tmp_path / "none.jsonl")]
    made = CliRunner().invoke(cli, nothing, env=environment)
    assert made.exit_code == 2
    assert "no text has a mention that is certain; received '0 texts'" in made.output
    assert not (tmp_path / "none.jsonl").exists()


def test_vectors_of_several_knowledge_bases_go_together(tmp_path: Path) -> None:
    def written(name: str, ids: list[str], encoder: str = "e") -> Path:
        path = tmp_path / name
        vectors = np.arange(2 * len(ids), dtype=np.float16).reshape(-1, 2)
        save_file({"vectors": vectors}, str(path), {"ids": json.dumps(ids), "encoder": encoder})
        return path

    one, other = written("one", ["a", "b"]), written("other", ["c"])
    both = EntityVectors(one, other)
    assert (len(both), both.get(["c", "b"]).tolist()) == (3, [[0.0, 1.0], [2.0, 3.0]])
    with pytest.raises(InvalidInputError, match="same id.*'b'"):
        EntityVectors(one, written("again", ["b"]))
    with pytest.raises(InvalidInputError, match="several encoders"):
        EntityVectors(one, written("foreign", ["d"], "f"))


def test_bad_texts_are_named(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text(
        '{"text": "a", "mentions": [[0, 9]], "label_id": ["x"]}\n{"text": "a", "mentions": [[0, 1]], "label_id": []}\n'
    )
    with pytest.raises(InvalidInputError, match=r"jsonl:1.*outside.*jsonl:2.*0 labels for 1"):
        read_spans(path)
    made = CliRunner().invoke(cli, ["train", "elq", "--data", str(path), "--out", str(tmp_path / "m")])
    assert made.exit_code == 2
    assert "--entities" in made.stderr
