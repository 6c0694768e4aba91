"""Entities and judged mentions from the files of others: small ones made by hand in their forms."""

from __future__ import annotations

import base64
import bz2
import gzip
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hyblink.app.cli.main import cli
from hyblink.app.core.errors import InvalidInputError, NotFoundError
from hyblink.app.core.types.linking import Mention
from hyblink.app.evaluation.linking.converters import aida, elq, marked, nif, zeshel, zeshel_entities
from hyblink.app.evaluation.linking.mentions import JudgedMention, read_mentions, with_unmarked, write_mentions
from hyblink.indexer.readers.entities.files import read_entities
from hyblink.ui.rendering import nif as to_nif

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


def page(title: str, number: int, text: str, redirect: str = "") -> str:
    to = f'<redirect title="{redirect}" />' if redirect else ""
    return (
        f"<page><title>{title}</title><ns>0</ns><id>{number}</id>{to}<revision><text>{text}</text></revision></page>\n"
    )


def test_redirects_of_redirects_other_dumps_and_disambiguations(tmp_path: Path) -> None:
    pages = [
        page("Mercury (planet)", 1, "'''Mercury''' is a planet."), page("Hermes planet", 2, "", "Planet Mercury"),
        page("Planet Mercury", 3, "", "Mercury (planet)"), page("Round", 4, "", "About"), page("About", 5, "", "Round"),
        page("AC", 6, "'''AC''' may refer to: {{dab}}"), page("John Smith", 7, "{{Human name disambiguation}}"),
        page("Quicksilver", 8, "May be many things."),
    ]  # fmt: skip
    dump = tmp_path / "enwiki-20261101-pages-articles.xml"
    dump.write_text(f"<mediawiki>{''.join(pages)}</mediawiki>")
    own = "INSERT INTO `page_props` VALUES (1,'wikibase_item','Q308',NULL),(8,'disambiguation','',NULL);\n"
    (tmp_path / "enwiki-20261101-page_props.sql").write_text(own)
    (tmp_path / "dewiki-20261101-page_props.sql").write_text(own.replace("Q308", "Q666"))
    assert [(row["id"], row["title"], row["aliases"]) for row in read_entities(dump)] == [  # type: ignore[index]
        ("Q308", "Mercury (planet)", ["Hermes planet", "Planet Mercury"])
    ]
    (tmp_path / "enwiki-20261101-page_props.sql").rename(tmp_path / "frwiki-20261101-page_props.sql")
    first = next(iter(read_entities(dump)))
    assert first["id"] == "1"  # type: ignore[index]  # of two dumps' items neither is its own


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
    others = [
        {"id": "Q43", "labels": {"de": {"value": "Nur deutsch"}}, "descriptions": []},
        {"id": "Q44", "labels": [], "descriptions": [], "aliases": []},  # what PHP makes of an empty map
        {"id": "L1", "lemmas": {"en": {"value": "first"}}},
        {"id": "Q45", "labels": {"mul": {"value": "ISO 639"}}, "aliases": {"mul": [{"value": "639"}]}},
    ]
    expected = [
        {"id": "Q42", "title": "Douglas Adams", "description": "English writer", "aliases": ["Douglas Noel Adams"],
         "lang": "en"}, None, None, None,
        {"id": "Q45", "title": "ISO 639", "description": "", "aliases": ["639"], "lang": "en"},
    ]  # fmt: skip
    path = tmp_path / "wikidata.json.gz"
    every = [item, *others]
    each = ",\n".join(json.dumps(one) for one in every)
    whole = json.dumps({"entities": {one["id"]: one for one in every}}, indent=1)
    for form in (f"[\n{each}\n]\n", f"\ufeff\n{each}\n", json.dumps(every), whole, json.dumps(json.loads(whole))):
        path.write_bytes(gzip.compress(form.encode()))
        assert list(read_entities(path)) == expected
    german = [row["title"] for row in read_entities(path, "de") if row is not None]  # type: ignore[index]
    assert german == ["Nur deutsch", "ISO 639"]
    path.write_bytes(gzip.compress(b"[\n{broken\n"))
    with pytest.raises(InvalidInputError, match=r"wikidata.json.gz:2"):
        list(read_entities(path))
    path.write_bytes(gzip.compress(f"[\n{each}\n]\n".encode())[:-20])
    with pytest.raises(InvalidInputError, match="wikidata.json.gz is broken"):
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
    # The headword as it was written, and as the definition begins, is the title.
    bang = f"{number(12)}\t{number(29)}"
    (tmp_path / "jargon.index").write_text(f"a name\t{bang}\nbang\t{bang}\tBang\n")
    (named,) = read_entities(tmp_path / "jargon.index")
    assert (named["title"], named["aliases"]) == ("Bang", ["a name"])  # type: ignore[index]
    (tmp_path / "jargon.index").write_text(f"far\t{number(5000)}\t{number(9)}\n")
    with pytest.raises(InvalidInputError, match="jargon.index:1 points behind the dictionary's end"):
        list(read_entities(tmp_path / "jargon.index"))
    (tmp_path / "jargon.dict.dz").write_bytes(gzip.compress(body)[:-12])
    with pytest.raises(InvalidInputError, match="jargon.dict.dz is broken"):
        list(read_entities(tmp_path / "jargon.index"))
    (tmp_path / "jargon.dict.dz").unlink()
    with pytest.raises(NotFoundError):
        list(read_entities(tmp_path / "jargon.index"))


def test_blink_s_entities(tmp_path: Path) -> None:
    row = {"text": " Germany is a country. ", "idx": "https://en.wikipedia.org/wiki?curid=11867", "title": "Germany",
           "entity": "Germany", "kb_idx": "Q183"}  # fmt: skip
    (tmp_path / "entity.jsonl").write_text("\ufeff" + json.dumps(row) + "\n{bad\n7\n")
    found = list(read_entities(tmp_path / "entity.jsonl"))
    assert found[0] == {"id": "11867", "title": "Germany", "description": row["text"],
                        "metadata": {"page": 11867, "wikidata": "Q183"}}  # fmt: skip
    assert isinstance(found[1], InvalidInputError)  # in its place, for the knowledge base to reject
    assert "entity.jsonl:2: not JSON" in str(found[1])
    assert "has the wrong type" in str(found[2])


def test_tables(tmp_path: Path) -> None:
    text = '\ufeffID,Title,aliases,Population,metadata\r\n1,"Ulm, Danube","A | B",126000,"{""river"": ""Danube""}"\r\n'
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(f'{text}2,"A\r\nB"\r\n3,"x"y,,,\r\n4,D,,,[]\r\n'.encode()))
    found = list(read_entities(tmp_path / "a.csv.gz"))
    assert found[0] == {"id": "1", "title": "Ulm, Danube", "aliases": ["A", "B"],
                        "metadata": {"Population": 126000, "river": "Danube"}}  # fmt: skip
    assert found[1:3] == [{"id": "2", "title": "A\nB"}, {"id": "3", "title": "xy"}], "short rows are filled up"
    assert str(found[3]).startswith("a.csv.gz:6: bad metadata")
    (tmp_path / "a.tsv").write_text('id\ttitle\n1\t"Weird Al" Yankovic\n2\t"Heroes\n')
    assert [row["title"] for row in read_entities(tmp_path / "a.tsv")] == ['"Weird Al" Yankovic', '"Heroes']  # type: ignore[index]
    (tmp_path / "b.csv").write_text("Name\nUlm\n")
    assert list(read_entities(tmp_path / "b.csv")) == [{"id": "Ulm", "title": "Ulm"}]
    (tmp_path / "b.csv").write_text("river\nDanube\n")
    with pytest.raises(InvalidInputError, match="no column of titles"):
        list(read_entities(tmp_path / "b.csv"))
    (tmp_path / "c.csv").write_text(f"id,title\n1,{'x' * 200_000}\n")
    assert len(next(iter(read_entities(tmp_path / "c.csv")))["title"]) == 200_000  # type: ignore[index,arg-type]


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
    found = with_unmarked(rows, lambda text: [Mention(a, b, text[a:b]) for a, b in ((0, 3), (4, 7))])
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
