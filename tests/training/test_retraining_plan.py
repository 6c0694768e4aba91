"""What a retraining learns from, what it is asked, and what the gate says of the outcome."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from scipy import stats

from hyblink.app.core.errors import InvalidInputError, NotFoundError
from hyblink.app.engines.embedded.records import SqliteRecords
from hyblink.app.feedback.feedback import Judgement
from hyblink.app.jobs.schedules import Schedules
from hyblink.training.data.rows import Text
from hyblink.training.retraining.inverse_cloze import Source, generate, masked, sentences
from hyblink.training.retraining.plan import Answers, Data, Gate, Plan, judge, lower_bound, overlap, plan_from, split

TEXT = """allow_anonymous(key)

Open a door with the key that fits it. Raises an error where no key fits at all.

>>> allow_anonymous("k")
True

The Door class is thread safe, and may be shared between any number of callers."""


def test_sentences_are_prose() -> None:
    assert [found for found, _ in sentences(TEXT)] == [
        "Open a door with the key that fits it.",
        "Raises an error where no key fits at all.",
        "The Door class is thread safe, and may be shared between any number of callers.",
    ]
    assert list(sentences("+---+---+\n| a | b |\n\nshort one.\n\nno full stop at the end of this line")) == []
    assert [found for found, _ in sentences("东京是日本的首都也是最大的城市。大阪是日本第二大的城市群中心。")] == [
        "东京是日本的首都也是最大的城市。",
        "大阪是日本第二大的城市群中心。",
    ]


@pytest.mark.parametrize(
    ("sentence", "title", "expected"),
    [
        ("Use json.dumps() to write, dumps is fast.", "json.dumps", "Use to write, is fast."),
        ("The Battle of Hastings was a BATTLE in 1066.", "Battle of Hastings", "The was a in 1066."),
        ("東京タワーは高い塔であり観光の名所です。", "東京タワー", "は高い塔であり観光の名所です。"),
        ("Nothing of it stands here.", "x.y", "Nothing of it stands here."),
    ],
)
def test_names_are_masked(sentence: str, title: str, expected: str) -> None:
    assert masked(sentence, title) == expected


def corpus(count: int) -> list[Source]:
    rng = np.random.default_rng(7)
    words = [f"{a}{b}{c}o" for a in "bcdfghkl" for b in "aeiou" for c in "mnprstvz"]
    return [
        Source(
            f"d{number}",
            f"module.name{number}",
            " ".join(f"Name{number} {' '.join(rng.choice(words, 8))} ends here." for _ in range(4)),
        )
        for number in range(count)
    ]


def test_one_question_of_each_document_and_nothing_gives_its_name_away() -> None:
    made = generate(corpus(400))
    assert len({one.document_id for one in made}) == len(made) > 390
    assert all(one.document_id.replace("d", "name") not in one.query.lower() for one in made)
    assert 0.2 < np.mean([one.held_out for one in made]) < 0.3
    assert made == generate(corpus(400)), "the same every time"
    assert [one.held_out for one in generate(corpus(400), seed=1)] == [one.held_out for one in made]
    kept = [one for one in made if " ".join(one.query.split()[:5]) in one.answer]
    assert 0.35 < len(kept) / len(made) < 0.65, "every second sentence stays in the answer"


def test_what_two_documents_say_is_no_question() -> None:
    same = "It returns the same thing for both of these."
    assert (
        generate([Source("a", "one", same), Source("b", "two", same.upper().replace(".", ".")), Source("c", "x", same)])
        == []
    )


def judgement(query: str, document: str, grade: int, source: Any, at: str = "2026-01-01") -> Judgement:
    return Judgement(query, document, grade, source, at=at)


def test_who_is_asked_is_never_learned_from() -> None:
    documents = generate(corpus(400))
    texts = {one.id: Text(one.text, one.title, one.id) for one in corpus(400)}
    taken = next(one for one in documents if not one.held_out)
    held = next(one for one in documents if one.held_out)
    judgements = [
        judgement("how do I open a door", "d1", 2, "person"),
        judgement("How do I  open a door", taken.document_id, 3, "clicks", "2026-02-01"),
        judgement(taken.query.upper(), "d9", 1, "import"),
        judgement("clicked", taken.document_id, 3, "clicks", "2026-02-01"),
        judgement("clicked", "gone", 3, "clicks", "2026-02-01"),
        judgement("clicked long ago", taken.document_id, 3, "clicks", "2020-01-01"),
        judgement("clicked by few", taken.document_id, 1, "clicks", "2026-02-01"),
        judgement("only bad answers", "d1", 0, "person"),
        judgement("its answer is gone", "deleted", 3, "person"),
        judgement("finds what is held out", held.document_id, 3, "clicks", "2026-02-01"),
    ]
    data = split(documents, judgements, texts.get, Plan(rows=150, held_out=1000), since="2026-01-15")
    learned = {row.query.lower() for row in (*data.rows, *data.dev)}
    asked = {query.lower() for query in (*data.judged.values(), *data.held_out.values())}
    assert len(learned) == 151
    assert len(data.held_out) == sum(one.held_out for one in documents) > 60
    assert sorted(data.judged.values()) == sorted(["how do I open a door", taken.query.upper()])
    assert (len(data.judged_qrels), data.left_out) == (2, 2)
    assert not learned & asked
    clicks = [row for row in (*data.rows, *data.dev) if row.id.startswith("clicks/")]
    assert [(row.query, [one.id for one in row.positives]) for row in clicks] == [("clicked", [taken.document_id])]
    learned_documents = {one.id for row in (*data.rows, *data.dev) for one in row.positives}
    assert not learned_documents & {doc for grades in data.held_out_qrels.values() for doc in grades}
    assert data.counts()["from_clicks"] + sum(r.id.startswith("clicks/") for r in data.dev) == 1
    without = split(documents, judgements, texts.get, Plan(clicks=False))
    assert without.counts()["from_clicks"] == 0
    with pytest.raises(InvalidInputError, match="nothing to learn from"):
        split([], [], texts.get, Plan())


@pytest.mark.parametrize(
    "params",
    [
        {"target": "everything"},
        {"rows": 0},
        {"rows": True},
        {"held_out": -1},
        {"publish": "now"},
        {"unknown": 1},
        {"gate": {"unknown": 1}},
        {"gate": []},
        {"gate": {"worse": float("nan")}},
        {"gate": {"least_overlap": 2}},
        {"gate": {"gain": "much"}},
        {"options": {"no_such_option": "1"}},
        {"options": {"steps": "-3"}},
        {"options": 5},
        {"options": {"base": "someone/model"}},
        {"options": {"tuning": "full"}},
        {"options": {"layers": "64"}},
        {"days": 1e9},
        {"days": -1},
    ],
)
def test_bad_plans(params: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=r"(received|expected|bad plan)"):
        plan_from(params)


def test_a_plan_is_what_was_asked_for() -> None:
    plan = plan_from({"rows": 10, "options": {"steps": 7}, "gate": {"worse": 0.5}})
    assert (plan.rows, plan.gate.worse, plan.gate.gain) == (10, 0.5, 0.0)
    assert (plan.config().steps, plan.config().recipe) == (7, "vdr_again")


def test_rank_biased_overlap() -> None:
    ranking = [f"d{n}" for n in range(20)]
    assert overlap(ranking, ranking) == overlap([], []) == 1.0
    assert overlap(ranking, [f"x{n}" for n in range(20)]) == 0.0
    first, last = ["x", *ranking[1:]], [*ranking[:9], "x"]
    assert 0 < overlap(ranking, first) < overlap(ranking, last) < 1, "the top weighs more"
    assert overlap(ranking, first) == overlap(first, ranking)
    by_hand = 2 / 3 * 0.9**3 + 0.1 / 0.9 * (0 / 1 * 0.9 + 2 / 2 * 0.9**2 + 2 / 3 * 0.9**3)
    assert overlap(["a", "b", "c"], ["b", "a", "d"]) == pytest.approx(by_hand)


def test_the_lower_bound_is_that_of_a_paired_t_test() -> None:
    values = np.random.default_rng(0).normal(0.1, 1.0, 50)
    bound = lower_bound(values.tolist())
    assert stats.ttest_1samp(values, bound, alternative="greater").pvalue == pytest.approx(0.05)
    assert lower_bound([1.0]) == float("-inf")
    inside = np.mean([lower_bound(np.random.default_rng(n).normal(0.3, 1, 40).tolist()) <= 0.3 for n in range(2000)])
    assert 0.93 < inside < 0.97


def pretend(count: int, judged: int = 30) -> Data:
    qrels = {f"h{n}": {f"d{n}": 1} for n in range(count)}
    asked = {f"j{n}": {f"d{n}": 2} for n in range(judged)}
    return Data((), (), dict.fromkeys(qrels, "q"), qrels, dict.fromkeys(asked, "q"), asked)


def run(data: Data, ranks: dict[str, int]) -> dict[str, dict[str, float]]:
    """The right document of each query at a rank, others of the same names for all systems around it."""
    made = {}
    for query, grades in {**data.held_out_qrels, **data.judged_qrels}.items():
        others = [f"o{n}" for n in range(10)]
        others.insert(ranks.get(query, 3) - 1, next(iter(grades)))
        made[query] = {doc: float(-at) for at, doc in enumerate(others)}
    return made


def test_the_gate_lets_gains_through_and_says_why_it_does_not() -> None:
    data = pretend(300)
    today = run(data, {})
    better = run(data, {f"h{n}": 1 for n in range(150)})
    serving = Answers(today, today)
    verdict = judge(Gate(), data, serving, Answers(better, better))
    assert (verdict.passed, verdict.certain, verdict.reasons) == (True, True, "")
    assert verdict.figures["held_out"]["gain"] == verdict.figures["signal"]["gain"] == pytest.approx(0.25)
    assert verdict.figures["judged"]["lower_bound"] == 0.0
    assert judge(Gate(), data, serving, Answers(today, better)).passed, "what people get may stay as it is"
    same = judge(Gate(), data, serving, Answers(better, today))
    assert "held-out questions by this signal alone the gain" in same.reasons
    assert judge(Gate(), data, serving, serving).figures["overlap"] == 1.0
    spoilt = better | {f"j{n}": run(data, {f"j{n}": 9})[f"j{n}"] for n in range(20)}
    worse = judge(Gate(), data, serving, Answers(spoilt, better))
    assert "30 judged queries the gain" in worse.reasons
    assert "held-out" not in worse.reasons
    fewer = judge(Gate(), data, serving, Answers(run(data, {f"h{n}": 5 for n in range(300)}), better))
    assert fewer.reasons.startswith("on 300 held-out questions the gain in nDCG@10 is -")
    strangers = {query: {f"z{n}": float(-n) for n in range(10)} | {next(iter(grades)): 5.0}
                 for query, grades in {**data.held_out_qrels, **data.judged_qrels}.items()}  # fmt: skip
    changed = judge(Gate(), data, serving, Answers(strangers, better))
    assert changed.reasons.startswith("rankings overlap by ")
    assert judge(Gate(least_overlap=0.0), data, serving, Answers(strangers, better)).passed
    few = judge(Gate(), pretend(300, judged=5), serving, Answers(better, better))
    assert few.passed
    assert not few.certain, "a person has to look"
    nobody = judge(Gate(), pretend(0, judged=0), Answers({}, {}), Answers({}, {}))
    assert (nobody.passed, nobody.certain) == (True, False)


def test_what_is_due_is_given_to_one_only(tmp_path: Any) -> None:
    one, other = (Schedules(SqliteRecords(tmp_path / "records.sqlite")) for _ in range(2))
    one.set("c", 1.0, {"rows": 5}, "k")
    now = time.time()
    assert one.take_due(now) == []
    assert other.get("c").params == {"rows": 5}
    due = [*one.take_due(now + 3700), *other.take_due(now + 3700)]
    assert [found.collection for found in due] == ["c"]
    assert other.get("c").next == pytest.approx(now + 3700 + 3600)
    one.put_off(due[0])
    assert [found.params for found in other.take_due(now + 3700)] == [{"rows": 5}]
    other.remove("c")
    with pytest.raises(NotFoundError):
        one.get("c")
    for bad in (0.0, float("nan"), 1e9):
        with pytest.raises(InvalidInputError, match="every_hours"):
            one.set("c", bad, {})
