"""Entities and judged mentions from the files of others: small ones made by hand in their forms."""

from __future__ import annotations

import base64
import bz2
import gzip
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli.main import cli
from app.core.errors import InvalidInputError, NotFoundError
from app.core.linking import Mention
from indexer.readers.entities import read_entities
from training.linking.converters import aida, elq, marked, nif, zeshel, zeshel_entities
from training.linking.data import JudgedMention, read_mentions, with_the_rest, write_mentions
from ui.rendering import nif as to_nif

DUMP = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/">
<siteinfo><sitename>Wikipedia</sitename></siteinfo>
<page><title>Ulm</title><ns>0</ns><id>12</id><revision><id>1</id><text>{{Infobox town|x={{y}}}}
[[File:Ulm.jpg|thumb|The [[minster]]]]
'''Ulm''' ({{IPA|x}}) is a [[city]] on the [[Danube|river Danube]].&lt;ref&gt;A source.&lt;/ref&gt; It is old.

Second paragraph.
== History ==
Old.</text></revision></page>
<page><title>Ulma</title><ns>0</ns><id>13</id><redirect title="Ulm#Name" /><revision><text>#REDIRECT [[Ulm]]</text></revision></page>
<page><title>Talk:Ulm</title><ns>1</ns><id>14</id><revision><text>Nice.</text></revision></page>
<page><title>Ulm (disambiguation)</title><ns>0</ns><id>15</id><revision><text>{{disambiguation}}</text></revision></page>
</mediawiki>"""


@pytest.mark.parametrize("packed", [False, True])
def test_a_wikipedia_dump(tmp_path: Path, packed: bool) -> None:
    path = tmp_path / ("dump.xml.bz2" if packed else "dump.xml")
    path.write_bytes(bz2.compress(DUMP.encode()) if packed else DUMP.encode())
    props = "INSERT INTO `page_props` VALUES (12,'wikibase_item','Q3012',NULL),(12,'defaultsort','x',NULL);\n"
    (tmp_path / "dump-page_props.sql.gz").write_bytes(gzip.compress(props.encode()))
    assert list(read_entities(path)) == [
        {"id": "Q3012", "title": "Ulm", "description": "Ulm () is a city on the river Danube. It is old.",
         "aliases": ["Ulma"], "metadata": {"page": 12, "wikidata": "Q3012"}}
    ]  # fmt: skip
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InvalidInputError, match="not a Wikipedia dump"):
        list(read_entities(path))


def test_an_entity_bomb_in_a_dump_is_refused(tmp_path: Path) -> None:
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><mediawiki>&b;</mediawiki>'
    (tmp_path / "dump.xml").write_text(bomb)
    with pytest.raises(InvalidInputError, match="not a Wikipedia dump"):
        list(read_entities(tmp_path / "dump.xml"))


def test_wikidata_s_json(tmp_path: Path) -> None:
    item = {
        "id": "Q42", "labels": {"en": {"value": "Douglas Adams"}}, "descriptions": {"en": {"value": "English writer"}},
        "aliases": {"en": [{"value": "Douglas Noel Adams"}]},
    }  # fmt: skip
    other = {"id": "Q43", "labels": {"de": {"value": "Nur deutsch"}}}
    path = tmp_path / "wikidata.json.gz"
    path.write_bytes(gzip.compress(f"[\n{json.dumps(item)},\n{json.dumps(other)}\n]\n".encode()))
    assert list(read_entities(path)) == [
        {"id": "Q42", "title": "Douglas Adams", "description": "English writer", "aliases": ["Douglas Noel Adams"],
         "lang": "en"}
    ]  # fmt: skip
    path.write_bytes(gzip.compress(b"[\n{broken\n"))
    with pytest.raises(InvalidInputError, match=r"wikidata.json.gz:2"):
        list(read_entities(path))


def test_a_dict_dictionary(tmp_path: Path) -> None:
    entries = [
        ("00-database-short", "A dictionary"),
        ("bang", "bang\n   An exclamation mark."),
        ("ulm", "ulm\n  A town."),
    ]
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

    def number(value: int) -> str:
        return (number(value // 64) if value >= 64 else "") + digits[value % 64]

    body, index, at = b"", [], 0
    for word, text in entries:
        index.append(f"{word}\t{number(at)}\t{number(len(text))}")
        if word == "bang":
            index.append(f"shriek\t{number(at)}\t{number(len(text))}")
        body += text.encode()
        at += len(text)
    assert number(1000) == "Po"
    assert base64.b64decode("AAPo") == (1000).to_bytes(3, "big")  # the same digits as base64's
    (tmp_path / "jargon.index").write_text("\n".join(index) + "\n")
    (tmp_path / "jargon.dict.dz").write_bytes(gzip.compress(body))
    rows = list(read_entities(tmp_path / "jargon.index"))
    assert [(row["title"], row["aliases"], row["description"]) for row in rows] == [  # type: ignore[index]
        ("bang", ["shriek"], "bang An exclamation mark."), ("ulm", [], "ulm A town."),
    ]  # fmt: skip
    (tmp_path / "jargon.dict.dz").unlink()
    with pytest.raises(NotFoundError):
        list(read_entities(tmp_path / "jargon.index"))


AIDA = """-DOCSTART- (1 EU)
EU\tB\tEU\t--NME--
rejects
German\tB\tGerman\tGermany\thttp://en.wikipedia.org/wiki/Germany\t11867\t/m/0345h
lamb
.

-DOCSTART- (947testa CRICKET)
West\tB\tWest Indies\tWest_Indies_cricket_team\thttp://x\t247\t/m/01
Indies\tI\tWest Indies\tWest_Indies_cricket_team\thttp://x\t247\t/m/01
win
"""


def test_aida(tmp_path: Path) -> None:
    path = tmp_path / "aida.tsv"
    path.write_text(AIDA)
    rows = list(aida(path))
    assert [(r.context.left, r.context.mention, r.context.right, r.entity_id, r.world) for r in rows] == [
        ("", "EU", " rejects German lamb.", "", "train"),
        ("EU rejects ", "German", " lamb.", "11867", "train"),
        ("", "West Indies", " win", "247", "testa"),
    ]
    path.write_text("EU\tX\tEU\tY\n")
    with pytest.raises(InvalidInputError, match=r"aida.tsv:1"):
        list(aida(path))


def test_nif_as_it_is_exported(tmp_path: Path) -> None:
    text = 'A "quoted"\\ line\nand \U0001f40d Ulm, Ulm.'
    start = text.index("Ulm")
    links = [
        {"mention": {"start": start, "end": start + 3}, "entity_id": "a b/c", "probability": 0.5},
        {"mention": {"start": start + 5, "end": start + 8}, "entity_id": None, "probability": 0.1},
    ]
    path = tmp_path / "links.ttl"
    path.write_text(to_nif(text, links, "kb"), encoding="utf-8")
    rows = list(nif(path))
    assert [row.entity_id for row in rows] == ["urn:hyblink:kb:a%20b%2Fc", ""]
    assert [row.context.mention for row in rows] == ["Ulm", "Ulm"]
    assert rows[0].context.left + rows[0].context.mention + rows[0].context.right == text
    path.write_text(path.read_text(encoding="utf-8").replace('anchorOf "Ulm"', 'anchorOf "Bonn"', 1), encoding="utf-8")
    with pytest.raises(InvalidInputError, match="not what stands there"):
        list(nif(path))
    path.write_text("not turtle at all <")
    with pytest.raises(InvalidInputError, match="not Turtle"):
        list(nif(path))


def test_zeshel(tmp_path: Path) -> None:
    (tmp_path / "documents").mkdir()
    (tmp_path / "mentions").mkdir()
    documents = [
        {"document_id": "D1", "title": "Yoda", "text": "Yoda was a master ."},
        {"document_id": "D2", "title": "Duel", "text": "the old master fought"},
    ]
    (tmp_path / "documents" / "star_wars.json").write_text("\n".join(map(json.dumps, documents)))
    mention = {
        "mention_id": "M",
        "context_document_id": "D2",
        "label_document_id": "D1",
        "start_index": 1,
        "end_index": 2,
        "text": "old master",
        "corpus": "star_wars",
    }
    (tmp_path / "mentions" / "train.json").write_text(json.dumps(mention))
    (row,) = zeshel(tmp_path, "train")
    assert (row.context.left, row.context.mention, row.context.right, row.entity_id, row.world) == (
        "the", "old master", "fought", "D1", "star_wars",
    )  # fmt: skip
    assert row.text.text == "the old master fought"
    assert [one["id"] for one in zeshel_entities(tmp_path, "star_wars")] == ["D1", "D2"]
    with pytest.raises(NotFoundError):
        list(zeshel(tmp_path, "val"))


def test_questions_of_elq_through_the_command(tmp_path: Path) -> None:
    path = tmp_path / "webqsp.jsonl"
    row = {"id": "q1", "text": "what language is spoken in ulm", "mentions": [[27, 30]], "wikidata_id": ["Q3012"]}
    path.write_text(json.dumps(row) + "\n")
    (one,) = elq(path)
    assert (one.context.mention, one.entity_id) == ("ulm", "Q3012")
    out = tmp_path / "mentions.jsonl"
    run = CliRunner()
    made = run.invoke(cli, ["kb", "convert", str(path), "--format", "elq", "--out", str(out), "--json"])
    assert json.loads(made.stdout) == {"mentions": 1, "nil": 0}
    assert read_mentions(out) == [one]
    assert run.invoke(cli, ["kb", "convert", str(path), "--format", "elq", "--out", str(out)]).exit_code == 2
    assert run.invoke(cli, ["kb", "convert", str(path), "--format", "odd", "--out", str(out) + "2"]).exit_code == 2
    path.write_text(json.dumps({**row, "wikidata_id": []}) + "\n")
    with pytest.raises(InvalidInputError, match=r"webqsp.jsonl:1"):
        list(elq(path))


def test_texts_marked_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "marked.txt"
    path.write_text("# a comment\n[[Ada|e1]] met [[nobody|]] (in [[Paris|e2]]).\nno mention\n")
    rows = list(marked(path))
    assert [(row.context.left, row.context.mention, row.entity_id) for row in rows] == [
        ("", "Ada", "e1"),
        ("Ada met ", "nobody", ""),
        ("Ada met nobody (in ", "Paris", "e2"),
    ]
    assert {row.text.text for row in rows} == {"Ada met nobody (in Paris)."}  # no space comes in beside punctuation
    found = with_the_rest(rows, lambda text: [Mention(a, b, text[a:b]) for a, b in ((0, 3), (4, 7))])
    assert [(row.context.mention, row.entity_id) for row in found[3:]] == [("met", "")]
    path.write_text("[[Ada]] came\n")
    with pytest.raises(InvalidInputError, match=r"marked.txt:1"):
        list(marked(path))


def test_judged_mentions_name_their_bad_lines(tmp_path: Path) -> None:
    path = tmp_path / "mentions.jsonl"
    write_mentions(path, [])
    with pytest.raises(InvalidInputError, match="no mentions"):
        read_mentions(path)
    path.write_text('{"mention": "a", "label_id": 0}\n{"mention": " "}\nnot json\n[]\n')
    with pytest.raises(InvalidInputError, match=r"jsonl:2.*jsonl:3.*jsonl:4"):
        read_mentions(path)
    path.write_text('{"mention": "a", "label_id": 0}\n')
    assert [(row.entity_id, isinstance(row, JudgedMention)) for row in read_mentions(path)] == [("0", True)]
