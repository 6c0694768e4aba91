"""What decides: cross-encoder, profiles, judged names, mining, fitting and evaluating."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from hyblink.app.application import App
from hyblink.app.cli.main import cli
from hyblink.app.core.errors import InvalidInputError
from hyblink.app.core.types.linking import LinkRequest, MentionContext, NameCounts, Text
from hyblink.app.core.types.ranking import Signal
from hyblink.app.evaluation.linking.candidate_files import Proposed, merged, read_candidates, recalls, write_candidates
from hyblink.app.evaluation.linking.examples import retrieve_candidates
from hyblink.app.evaluation.linking.mentions import JudgedMention, counts_of
from hyblink.app.linking.disambiguation import SHIPPED, features_of
from tests.support.linking import (
    ENTITIES,
    KB,
    Reads,
    kb,  # noqa: F401 - a fixture
)


def test_the_cross_encoder_reads_the_best_and_has_its_say(kb: App) -> None:
    reader = Reads("A large snake")
    kb.encoders.use_entity_cross(reader)
    text = "programming language Python by Guido"
    result = kb.linker.link(KB, LinkRequest((Text(text),), threshold=0.0, rerank=True))
    assert result.texts[0].links[0].entity_id == "py-snake"
    assert result.cross is not None
    assert (result.cross.mentions, result.cross.skipped) == (1, 0)
    assert reader.read == [("Python", 8)]
    assert result.cross.error == ""
    kb.catalog.save_link_profile(KB, replace(SHIPPED, cross_threshold=1.0, fast_threshold=0.0))
    assert kb.linker.link(KB, LinkRequest((Text(text),), rerank=True)).texts[0].links[0].reason == "below_threshold"
    decided = kb.linker.link(KB, LinkRequest((Text(text),), rerank=True, budget_ms=0.0))
    assert (decided.texts[0].links[0].reason, decided.threshold) == ("linked", 0.0)  # each way has its own threshold
    late = kb.linker.link(KB, LinkRequest((Text(text),), threshold=0.0, rerank=True, budget_ms=0.0))
    assert late.texts[0].links[0].entity_id == "py-lang"  # decided without
    assert late.cross is not None
    assert (late.cross.mentions, late.cross.skipped) == (0, 1)


def test_a_profile_is_kept_and_used(kb: App) -> None:
    saved = kb.catalog.save_link_profile(KB, replace(SHIPPED, fast_threshold=0.999999, origin="test"))
    assert (saved.version, kb.catalog.link_profile(KB)) == (1, saved)
    result = kb.linker.link(KB, LinkRequest((Text("Python"),), rerank=False))
    assert (result.profile, result.threshold, result.texts[0].links[0].reason) == (1, 0.999999, "below_threshold")
    assert kb.catalog.save_link_profile(KB, SHIPPED).version == 2


def test_what_names_were_judged_to_mean_decides_the_prior(kb: App) -> None:
    def prior(name: str) -> dict[str, float | None]:
        request = LinkRequest((Text(name, ((0, len(name)),)),), threshold=0.0, rerank=False, shown=20)
        found = kb.linker.link(KB, request).texts[0].links[0].candidates
        return {c.entity_id: s.raw for c in found for s in c.signals if s.signal is Signal.PRIOR and s.raw}

    assert prior("Python") == {"py-lang": pytest.approx(0.5), "py-snake": pytest.approx(0.5)}
    judged = [JudgedMention("", MentionContext("", "python", ""), one) for one in ("py-snake",) * 3 + ("py-lang", "")]
    counts = counts_of(judged)
    assert counts.names == {"python": {"py-snake": 3.0, "py-lang": 1.0}}
    assert kb.catalog.save_link_profile(KB, SHIPPED, counts).counted
    assert prior("Python") == {"py-snake": pytest.approx(4 / 6), "py-lang": pytest.approx(2 / 6)}  # title 1 + counts
    assert prior("pythons")["py-snake"] == pytest.approx(3.5 / 5)  # in other case and number titles weigh half
    # What a name was seen to mean is a candidate, whatever it is called; what is gone is none, what came back is.
    unnamed = {"the big one": {"py-snake": 2.0, "gone": 9.0}, "The  big-one": {"py-snake": 1.0, "lisp": 1.0}}
    kb.catalog.save_link_profile(KB, SHIPPED, NameCounts(unnamed))
    assert prior("the big one") == {"py-snake": pytest.approx(3 / 4), "lisp": pytest.approx(1 / 4)}
    assert prior("The Big Ones") == prior("the big one")
    assert prior("big one") == {}
    kb.entities.remove(KB, ["py-snake"])
    assert prior("the big one") == {"lisp": pytest.approx(1.0)}
    kb.entities.bulk(KB, [{"id": "py-snake", "title": "Python"}])
    assert prior("the big one") == {"py-snake": pytest.approx(3 / 4), "lisp": pytest.approx(1 / 4)}
    kb.catalog.save_link_profile(KB, SHIPPED)
    assert prior("Python")["py-snake"] == pytest.approx(0.5)


def test_a_judged_mention_is_no_evidence_of_itself(kb: App) -> None:
    def priors(rows: Sequence[JudgedMention]) -> list[dict[str, float]]:
        reader = kb.catalog.engine(KB).snapshot().reader
        found = []
        for _, one in retrieve_candidates(kb.linker, KB, rows, 20):
            ids = reader.doc_ids(one.candidates.keys)
            found.append(dict(zip(ids, features_of(one.candidates, {})["prior"].tolist(), strict=True)))
        return found

    counted = [JudgedMention(f"{at}", MentionContext(f"{at}", "thing", ""), "lisp") for at in range(2)]
    counted += [JudgedMention("", MentionContext("once", "such thing", ""), "lisp")]
    other = JudgedMention("0", MentionContext("not counted", "thing", ""), "lisp")
    kb.catalog.save_link_profile(
        KB, SHIPPED, counts_of([*counted, JudgedMention("", MentionContext("", "thing", ""), "py-lang")])
    )
    first, second, once, free = priors([*counted, other])
    assert first["lisp"] == second["lisp"] == pytest.approx(1 / 2)  # the other of the two, beside py-lang's one
    assert free["lisp"] == pytest.approx(2 / 3)
    assert once.get("lisp", 0.0) == 0.0  # nothing else says that the name may mean it


def test_counts_that_a_profile_of_an_earlier_release_holds_are_kept(kb: App) -> None:
    assert kb.catalog.save_link_profile(KB, SHIPPED).counted == ""
    path = kb.settings.data_dir / "collections" / KB / "link_profile.json"
    value = json.loads(path.read_text())
    del value["counted"], value["checksum"]
    path.write_text(json.dumps({**value, "counts": {"thing": {"lisp": 2.0}}}))
    known = kb.catalog.link_profile(KB)
    assert known is not None
    request = LinkRequest((Text("thing", ((0, 5),)),), threshold=0.0, rerank=False)
    for _ in range(2):
        assert kb.linker.link(KB, request).texts[0].links[0].candidates[0].entity_id == "lisp"
        kb.catalog.save_link_profile(KB, known)  # writes them where they belong now
    assert "counts" not in json.loads(path.read_text())
    assert kb.catalog.name_counts(KB).names == {"thing": {"lisp": 2.0}}


def test_mining_fitting_and_evaluating(
    kb: App, make_app: Callable[..., App], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commands of training over judged mentions, with the real tokenizer and no other model."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(400):
        one = ENTITIES[int(rng.integers(len(ENTITIES)))]
        rows.append(
            {"id": f"{one['id']}:{number}", "context_left": f"{one['description']} The", "mention": one["title"],
             "context_right": "there.", "label_id": one["id"], "world": "vw"[number % 2]}
        )  # fmt: skip
    data = tmp_path / "mentions.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    kb.close()
    monkeypatch.setenv("HYBLINK_DATA_DIR", str(kb.settings.data_dir))
    run = CliRunner()
    loaded = tmp_path / "kb.jsonl"
    loaded.write_text("".join(json.dumps(row) + "\n" for row in ENTITIES))
    assert run.invoke(cli, ["kb", "load", str(loaded), "-k", "real"]).exit_code == 0
    mined = run.invoke(cli, ["kb", "mine", str(data), "-k", "real", "--out", str(tmp_path / "rows.jsonl"), "--json"])
    assert mined.exit_code == 0, mined.output
    assert json.loads(mined.stdout) == {"mentions": 400, "rows": 400, "gold_missing": 0}
    first = json.loads((tmp_path / "rows.jsonl").read_text().splitlines()[0])
    assert "« " in first["query"]
    assert first["pos"][0]["id"] == rows[0]["label_id"]
    assert first["pos"][0]["id"] not in {one["id"] for one in first["neg"]}
    # Candidates kept in files, of two runs merged, give the same kind of rows.
    for name, options in (("words", ["--signals", "bm25", "--candidates", "3"]), ("names", ["--signals", "prior"])):
        proposed = ["kb", "candidates", str(data), "-k", "real", "--out", str(tmp_path / name), *options, "--json"]
        kept = run.invoke(cli, proposed)
        assert kept.exit_code == 0, kept.output
    both = run.invoke(
        cli, ["kb", "merge", str(tmp_path / "words"), str(tmp_path / "names"), "--out", str(tmp_path / "b"), "--json"]
    )
    assert both.exit_code == 0, both.output
    of_names, of_both = (json.loads(one.stdout) for one in (kept, both))
    assert of_both["recall"]["64"] == 1.0 == of_both["worlds"]["w"]["64"] >= of_names["recall"]["64"]
    taken = ["kb", "mine", str(data), "-k", "real", "--out", str(tmp_path / "r2.jsonl"), "--candidates"]
    refused = run.invoke(cli, [*taken, str(tmp_path / "b"), "--scores"])
    assert "does not say what is decided" in refused.output
    assert run.invoke(cli, [*taken, str(tmp_path / "b"), "--keep", "2"]).exit_code == 0
    for row in map(json.loads, (tmp_path / "r2.jsonl").read_text().splitlines()):
        assert row["pos"][0]["id"] not in {one["id"] for one in row["neg"]}
        assert len(row["neg"]) <= 2
    assert first["query"] == json.loads((tmp_path / "r2.jsonl").read_text().splitlines()[0])["query"]
    fitted = run.invoke(cli, ["kb", "fit", str(data), "-k", "real", "--json"])
    assert fitted.exit_code == 0, fitted.output
    profile = json.loads(fitted.stdout)
    assert profile["version"] == 1
    assert profile["figures"]["fast.false_link_rate"] <= 0.15
    again = run.invoke(
        cli, ["kb", "fit", str(data), "-k", "real", "--folds", "5", "--whole-texts", "--dry-run", "--json"]
    )
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["figures"]["fast.mentions"] >= 400
    found = run.invoke(cli, ["kb", "evaluate", str(data), "-k", "real", "--json"])
    assert found.exit_code == 0, found.output
    systems = {one["system"]: one for one in json.loads(found.stdout)["systems"]}
    assert systems["fused"]["recall"]["64"] == 1.0
    assert systems["decided"]["recall"]["1"] > systems["prior"]["recall"]["1"]
    halves = systems["decided"]["worlds"]
    assert {world: own["mentions"] for world, own in halves.items()} == {"v": 200, "w": 200}
    accuracy = np.mean([own["recall"]["1"] for own in halves.values()])
    assert accuracy == pytest.approx(systems["decided"]["macro_accuracy"]) == systems["decided"]["recall"]["1"]
    shown = run.invoke(cli, ["kb", "evaluate", str(data), "-k", "real", "--worlds"]).stdout
    assert "v: 200 mentions" in shown
    assert "macro" in shown
    decided = json.loads(found.stdout)["decisions"]["decided"]
    assert decided["threshold"] == profile["fast_threshold"]
    assert decided["nil_recall"] == 0.0  # every mention means something
    # The hard part of them, the same way; it cannot be told where names are not looked up.
    hard = run.invoke(cli, ["kb", "evaluate", str(data), "-k", "real", "--ambiguous", "--json"])
    assert hard.exit_code == 0, hard.output
    several = json.loads(hard.stdout)
    assert 0 < several["mentions"] < 400
    prior = next(one for one in several["systems"] if one["system"] == "prior")
    assert prior["recall"]["1"] < systems["prior"]["recall"]["1"]
    blind = ["kb", "evaluate", str(data), "-k", "real", "--ambiguous", "--signals", "bm25", "--json"]
    assert "prior among them" in run.invoke(cli, blind).stdout
    # With scores, rows say what is decided without a cross-encoder: the best first.
    scored = tmp_path / "scored.jsonl"
    mined = run.invoke(cli, ["kb", "mine", str(data), "-k", "real", "--out", str(scored), "--scores", "--json"])
    assert mined.exit_code == 0, mined.output
    taught = [json.loads(line) for line in scored.read_text().splitlines()]
    assert all(one["neg_scores"] == sorted(one["neg_scores"], reverse=True) for one in taught)
    right = [one["pos_scores"][0] > max(one["neg_scores"]) for one in taught]
    assert float(np.mean(right)) == pytest.approx(systems["decided"]["recall"]["1"], abs=0.005)
    vectors = run.invoke(cli, ["kb", "export-vectors", "-k", "real", "--out", str(tmp_path / "v.safetensors")])
    assert vectors.exit_code == 0, vectors.output
    trained = run.invoke(
        cli,
        ["train", "blink_bi_hard", "--data", str(tmp_path / "rows.jsonl"), "--entities",
         str(tmp_path / "v.safetensors"), "--out", str(tmp_path / "tower"), "--set", "steps=3", "--set", "batch=4",
         "--set", "negatives=2", "--json"],
    )  # fmt: skip
    assert trained.exit_code == 0, trained.output
    assert json.loads(trained.stdout)["kind"] == "mention-lora"
    monkeypatch.setenv("HYBLINK_LINK__MENTION_ENCODER", str(tmp_path / "tower"))
    text = tmp_path / "t.txt"
    text.write_text("a snake: Python")
    made = run.invoke(cli, ["link", str(text), "-k", "real", "--no-cross", "--json"])
    assert made.exit_code == 0, made.output
    answer = json.loads(made.stdout)
    assert answer["mention_encoder"].startswith("mention:tower:")
    assert answer["calibrated"] is False  # the profile was fitted with another encoder


def test_candidates_of_several_runs_are_merged(tmp_path: Path) -> None:
    one = [Proposed("m1", "a", ("b", "a"), "w1"), Proposed("m2", "", ("c",), "w2")]
    other = [Proposed("m1", "a", ("a", "d"), "w1"), Proposed("m3", "x", ("y",), "w2")]
    made = merged([one, other], 2)
    assert [(row.id, row.candidates) for row in made] == [("m1", ("a", "b")), ("m2", ("c",)), ("m3", ("y",))]
    found = recalls(made)
    assert (found[""][1], found["w1"][1], found["w2"][64]) == (0.5, 1.0, 0.0)  # of m1 and m3: m2 means nothing
    write_candidates(tmp_path / "kept.jsonl", made)
    assert read_candidates(tmp_path / "kept.jsonl") == made
    with pytest.raises(InvalidInputError, match="differ in what the mention 'm1' means"):
        merged([one, [Proposed("m1", "b", ())]], 2)
    (tmp_path / "bad.jsonl").write_text('{"id": "m", "candidates": "a"}\n{"id": 1}\n')
    with pytest.raises(InvalidInputError, match=r"bad.jsonl:1: .*no list of ids.*bad.jsonl:2"):
        read_candidates(tmp_path / "bad.jsonl")
    (tmp_path / "twice.jsonl").write_text('{"id": "m", "candidates": []}\n' * 2)
    with pytest.raises(InvalidInputError, match="a mention twice"):
        read_candidates(tmp_path / "twice.jsonl")
