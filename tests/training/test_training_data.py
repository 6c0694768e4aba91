"""Training rows from every form of file, and what is said of bad ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.training import tiny_rows

from hyblink.app.core.errors import InvalidInputError, NotFoundError
from hyblink.training.data.batches import draw, rows_of_step
from hyblink.training.data.rows import Text, TrainingRow, fingerprint, read_rows, write_jsonl
from hyblink.training.negatives.mining import (
    Mining,
    OfflineBm25,
    Proposal,
    RandomPool,
    audit,
    filtered,
    holds_answer,
    mine,
    select,
)
from hyblink.training.recipes import RECIPES, recipe


def test_jsonl_round_trip_and_fingerprint(tmp_path: Path) -> None:
    rows = [
        TrainingRow("q", (Text("p", "t", "1"),), (Text("n", source="bm25@3:1.5"),), (1.0,), (0.5,), "7", ("yes",)),
        TrainingRow("only words", (Text("p"),)),
    ]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    assert read_rows(tmp_path / "rows.jsonl") == rows
    assert fingerprint(rows) != fingerprint(rows[:1])


def test_plain_jsonl_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"query": "q", "pos": ["a"], "neg": ["b", {"text": "c", "title": "t"}]}\n\n')
    (row,) = read_rows(path)
    assert [one.joined for one in (*row.positives, *row.negatives)] == ["a", "b", "t. c"]


def test_dureader_forms(tmp_path: Path) -> None:
    dual = tmp_path / "dual.tsv"
    dual.write_text("q1\tnull\tgood\tnull\tbad\tnull\nq1\tnull\tgood\tnull\tworse\tnull\n")
    assert [(r.positives[0].text, r.negatives[0].text) for r in read_rows(dual)] == [("good", "bad"), ("good", "worse")]
    cross = tmp_path / "cross.tsv"
    cross.write_text("q1\tnull\tgood\t1\nq1\tnull\tbad\t0\nq1\tnull\tworse\t0\n")
    (row,) = read_rows(cross)
    assert (len(row.positives), len(row.negatives)) == (1, 2)


def test_dpr_json(tmp_path: Path) -> None:
    path = tmp_path / "dpr.json"
    entry = {
        "question": "q",
        "answers": ["yes"],
        "positive_ctxs": [{"title": "T", "text": "p"}],
        "negative_ctxs": [{"title": "", "text": "n"}],
        "hard_negative_ctxs": [{"title": "", "text": "h"}],
    }
    path.write_text(json.dumps([entry]))
    (row,) = read_rows(path)
    assert row.answers == ("yes",)
    assert [(one.text, one.source) for one in row.negatives] == [("h", "hard"), ("n", "given")]


def test_beir_folder(tmp_path: Path) -> None:
    (tmp_path / "qrels").mkdir()
    (tmp_path / "corpus.jsonl").write_text(
        '{"_id": "d1", "title": "", "text": "one"}\n{"_id": "d2", "title": "t", "text": "two"}\n'
    )
    (tmp_path / "queries.jsonl").write_text('{"_id": "q1", "text": "first"}\n{"_id": "q2", "text": "second"}\n')
    (tmp_path / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td2\t1\nq2\td1\t0\n")
    (row,) = read_rows(tmp_path)
    assert (row.query, row.positives[0].joined, row.id) == ("first", "t. two", "q1")
    (tmp_path / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\nq1\tgone\t1\n")
    with pytest.raises(InvalidInputError, match="corpus has not"):
        read_rows(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"query": "q", "pos": []}', "rows.jsonl:1: no positive passage"),
        ('{"query": " ", "pos": ["a"]}', "the query is empty"),
        ('{"query": "q", "pos": ["a"], "neg": ["b", "a"]}', "a positive is among the negatives: 'a'"),
        ('{"query": "q", "pos": [" "]}', "a passage is empty"),
        ('{"query": "q", "pos": ["a"], "pos_scores": [1, 2]}', "2 positive scores for 1 passages"),
        ('{"query": "q", "pos": ["a"]}\n{"query": "q"}', "rows.jsonl:2: not a row"),
        ('{"query": "q", "pos": "a"}', "not a list"),
        ("nonsense", "rows.jsonl:1: not a row"),
        ("", "no training rows"),
    ],
)
def test_bad_rows_are_named_by_line(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "rows.jsonl").write_text(content)
    with pytest.raises(InvalidInputError, match=said):
        read_rows(tmp_path / "rows.jsonl")


def test_bad_paths_and_forms(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no such training data"):
        read_rows(tmp_path / "gone.jsonl")
    (tmp_path / "rows.xml").write_text("<a/>")
    with pytest.raises(InvalidInputError, match="unknown form"):
        read_rows(tmp_path / "rows.xml")
    (tmp_path / "three.tsv").write_text("a\tb\tc\n")
    with pytest.raises(InvalidInputError, match=r"three.tsv:1: 3 fields"):
        read_rows(tmp_path / "three.tsv")


def test_every_epoch_shows_every_row_once_and_steps_do_not_depend_on_what_came_before() -> None:
    seen = [at for step in range(5) for at in rows_of_step(20, 4, 7, step)]
    assert sorted(seen) == list(range(20))
    assert rows_of_step(20, 4, 7, 5) != rows_of_step(20, 4, 7, 0)
    rows = tiny_rows(20, teacher=True)
    later = draw(rows, batch=4, negatives=3, seed=7, step=11)
    assert later == draw(rows, batch=4, negatives=3, seed=7, step=11)
    assert all(len(one.passages) == 4 for one in later)
    assert all(one.teacher[0] == 3.0 for one in later)


CORPUS = [
    Text("the cat sat on the mat", id="1"),
    Text("The cat sat on the mat!", id="2"),
    Text("dogs bark at cats in Paris", id="3"),
    Text("a cat and a mat", id="4"),
]


def test_negatives_are_chosen_by_rank_margin_likeness_and_answer() -> None:
    row = TrainingRow("cat mat", (CORPUS[0],), answers=("paris",))
    proposals = [Proposal(text, "bm25", rank, 5.0 - rank) for rank, text in enumerate(CORPUS, 1)]
    assert [p.text.id for p in select(row, proposals, Mining())] == ["4"]  # 2 says the same, 3 holds the answer
    loose = Mining(drop_near_duplicates=False, drop_answers=False)
    assert [p.text.id for p in select(row, proposals, loose)] == ["2", "3", "4"]
    ranked = Mining(first_rank=3, last_rank=3, drop_near_duplicates=False, drop_answers=False)
    assert [p.text.id for p in select(row, proposals, ranked)] == ["3"]
    # The positive has 4.0: an absolute margin of 1.5 asks for at most 2.5, a relative one of .8 for at most 3.2.
    for margin, kept in ((Mining(absolute_margin=1.5), ["4"]), (Mining(relative_margin=0.8), ["4"])):
        assert [p.text.id for p in select(row, proposals, margin)] == kept
    assert select(row, proposals, Mining(absolute_margin=4.0)) == []
    assert holds_answer("He lives in PARIS  now", ["paris now"])


def test_mining_keeps_lineage_and_a_teachers_scores() -> None:
    rows = [TrainingRow("cat mat", (CORPUS[0],))]
    source = OfflineBm25(CORPUS, str.split)
    (mined,) = mine(rows, source, Mining(keep=2), scores=True)
    assert mined.negatives[0].source.startswith("bm25@")
    assert len(mined.negative_scores) == len(mined.negatives) == 2
    assert mined.positive_scores
    pool = RandomPool(CORPUS, size=2)
    assert [p.text.id for p in pool("q", 5)] == [p.text.id for p in pool("q", 5)]
    with pytest.raises(InvalidInputError, match="bad range of ranks; received '5 to 2'"):
        mine(rows, source, Mining(first_rank=5, last_rank=2))


def test_a_judge_finds_false_negatives_and_can_drop_them() -> None:
    row = TrainingRow(
        "cat", (Text("cat"),), (Text("cats are animals", source="bm25@1:2"), Text("stones", source="dense@4:1"))
    )

    def judge(_query: str, texts: list[str]) -> list[float]:
        return [float("cat" in text) for text in texts]

    found = audit([row], judge)
    assert (found.negatives, found.false_negatives, found.share) == (2, 1, 0.5)
    assert found.by_source == {"bm25": (1, 1), "dense": (1, 0)}
    assert found.worst[0][2] == "bm25@1:2"
    (kept,) = filtered([row], judge, 0.5)
    assert [one.text for one in kept.negatives] == ["stones"]


def test_every_recipe_is_sound_and_options_are_typed() -> None:
    for name in RECIPES:
        recipe(name)
    assert recipe("dense", {"steps": "7", "symmetric": "true", "precision": "bf16"}).steps == 7
    for changes, said in (
        ({"stepz": "7"}, "unknown option of the recipe dense; received 'stepz'"),
        ({"steps": "many"}, "bad steps; received 'many'; expected int"),
        ({"steps": "0"}, "steps is out of range; received 0"),
        ({"loss": "svdr"}, "a dense run has no such loss"),
        ({"precision": "fp8"}, "bad precision"),
        ({"accumulate": "3"}, "accumulate does not divide batch"),
    ):
        with pytest.raises(InvalidInputError, match=said):
            recipe("dense", changes)
    with pytest.raises(InvalidInputError, match="unknown recipe"):
        recipe("magic")
