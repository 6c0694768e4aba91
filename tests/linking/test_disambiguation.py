"""The arithmetic of linking: names, context quotas, utilities, calibration, union of detectors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyblink.app.core.errors import InvalidInputError
from hyblink.app.core.types.linking import Mention, MentionContext, Utility
from hyblink.app.core.types.ranking import Signal
from hyblink.app.encoders.mention.text import END_MARK, START_MARK, context_quota, marked
from hyblink.app.evaluation.linking.calibration import Outcomes, expected_calibration_error, outcomes
from hyblink.app.evaluation.linking.examples import Example, marked_or_ordinary
from hyblink.app.evaluation.linking.examples import sample_indices as drawn_places
from hyblink.app.evaluation.linking.measures import decision
from hyblink.app.evaluation.linking.mentions import REST, JudgedMention
from hyblink.app.linking.candidate_generation import Candidates
from hyblink.app.linking.disambiguation import coherence, decide, ledger, softmax_with_nil
from hyblink.app.linking.mention_detection import union
from hyblink.app.linking.surface_forms import keys_of, runs, tokens
from hyblink.indexer.readers.entities.files import _python_aliases
from hyblink.training.linking.fit import fit_coefficients, fit_probabilities, threshold_for
from hyblink.training.linking.profile import fit_profile


@given(st.text(alphabet="abc .-+日本ßÉ'’_1", max_size=30))
def test_a_name_s_keys_are_those_of_its_run_of_tokens(name: str) -> None:
    made, keys = tokens(name), keys_of(name)
    if keys is None:
        assert len(made) == 0
        return
    count = len(made)
    assert keys[0] == int(runs(made.exact_T, made.exact_T, count)[0])
    assert keys[1] == int(runs(made.folded_T, made.folded_T, count)[0])
    assert keys[2] == int(runs(made.folded_T, made.singular_T, count)[0])
    for word, start, end in zip(made.words, made.starts_T, made.ends_T, strict=True):
        assert name[start:end] == word


def test_names_are_equal_in_other_case_number_and_with_hyphens() -> None:
    def folded(name: str) -> tuple[int, int]:
        made = keys_of(name)
        assert made is not None
        return made[1], made[2]

    assert folded("E-Mail")[0] == folded("e mail")[0]
    assert folded("hash tables")[1] == folded("Hash Table")[0]
    assert folded("C++")[0] != folded("C")[0]
    assert folded("json.dump")[0] != folded("json dump")[0]
    assert keys_of("json.dump")[0] != keys_of("JSON.dump")[0]  # type: ignore[index]
    assert keys_of("") is None


@given(st.integers(0, 200), st.integers(0, 200), st.integers(0, 200), st.integers(0, 128))
def test_the_context_quota_uses_the_room_and_no_more(left: int, mention: int, right: int, room: int) -> None:
    kept_left, kept_right = context_quota(left, mention, right, room)
    assert 0 <= kept_left <= left
    assert 0 <= kept_right <= right
    rest = max(0, room - mention)
    assert kept_left + kept_right == min(rest, left + right)  # what one side leaves goes to the other
    if left + right > rest and min(left, right) >= (rest + 1) // 2:
        assert abs(kept_left - kept_right) <= 1


@pytest.fixture(scope="module")
def tokenizer():  # type: ignore[no-untyped-def]
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = [f"w{n}" for n in range(50)] + ["m", START_MARK, END_MARK, '"']
    made = Tokenizer(models.WordLevel({word: at for at, word in enumerate([*words, "[UNK]"])}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return made


def test_marked_mentions_keep_the_nearest_context(tokenizer) -> None:  # type: ignore[no-untyped-def]
    left, right = " ".join(f"w{n}" for n in range(20)), " ".join(f"w{n}" for n in range(20, 40))
    contexts = [
        MentionContext(f"{left} ", "m", f" {right}"),
        MentionContext("", "m", f" {right}"),
        MentionContext(f"{left} ", right, f" {right}"),
        MentionContext("w1 « w2 ", "m", ""),
    ]
    assert marked(tokenizer, contexts, 4 + 1 + 6) == [
        "w17 w18 w19 « m » w20 w21 w22",
        "« m » w20 w21 w22 w23 w24 w25",
        "« w20 w21 w22 w23 w24 w25 w26 »",  # a mention longer than the room is cut, and a quota of 0 keeps nothing
        'w1 " w2 « m »',
    ]


def candidates(bm25: list[float], prior: list[float]) -> Candidates:
    raw = np.array([bm25, prior])
    return Candidates(
        np.arange(len(bm25)), np.arange(len(bm25)), (Signal.BM25, Signal.PRIOR), raw, raw / 2, ({0: 1}, {1: 1})
    )


def test_utilities_are_sums_that_the_ledger_shows() -> None:
    utility = Utility({"bm25_z": 2.0, "prior": 3.0, "cross": 0.5}, nil=1.0, knots=((0.0, 0.0), (1.0, 0.5)))
    extra = {Signal.CROSS: np.array([4.0, 0.0])}
    some = candidates([1.0, 2.0], [0.0, 1.0])
    decided = decide(some, utility, extra)
    assert decided.features["dense"].tolist() == [0.4, 0.4]  # no vectors: the same for all
    # 2 · (1 / 2) + 3 · 0 + 0.5 · 4 and 2 · (2 / 2) + 3 · 1 + 0.5 · 0
    assert decided.utility_C.tolist() == [3.0, 5.0]
    assert decided.order == (1, 0)
    p = np.exp(5.0) / (np.exp(1.0) + np.exp(3.0) + np.exp(5.0))
    assert decided.probability_C[1] == pytest.approx(p)
    assert decided.probability_of_best == pytest.approx(p / 2, abs=1e-6)
    for place in (0, 1):
        lines = ledger(decided, some, place, utility)
        assert sum(line.contribution for line in lines) == pytest.approx(decided.utility_C[place])
    lines = {line.signal: line for line in ledger(decided, some, 0, utility)}
    assert [lines[one].leg_rank for one in (Signal.BM25, Signal.PRIOR, Signal.CROSS)] == [1, None, None]
    assert lines[Signal.DENSE].raw is None


def test_an_entity_without_a_vector_is_as_near_as_the_others_are() -> None:
    raw = np.array([[0.8, np.nan, 0.4]])
    some = Candidates(np.arange(3), np.arange(3), (Signal.DENSE,), raw, np.array([[1.0, 0.0, -1.0]]), ({0: 1, 2: 2},))
    decided = decide(some, Utility({"dense": 1.0, "dense_z": 1.0}, 0.0), {})
    assert decided.utility_C.tolist() == pytest.approx([1.8, 0.6, -0.6])
    (line,) = ledger(decided, some, 1, Utility({"dense": 1.0, "dense_z": 1.0}, 0.0))
    assert (line.raw, line.contribution) == (None, pytest.approx(0.6))
    assert line.note.endswith("not encoded yet")


def test_no_candidate_leaves_everything_to_nil() -> None:
    assert softmax_with_nil(np.zeros(0), -3.0).tolist() == []
    assert decide(candidates([], []), Utility({}, 0.0), {}).probability_of_best == 0.0


def test_coherence_favours_what_neighbours_mean() -> None:
    utility = Utility({"prior": 10.0}, nil=-10.0)
    sure, torn = candidates([0.0], [1.0]), candidates([0.0, 0.0], [0.5, 0.5])
    decided = [decide(one, utility, {}) for one in (sure, torn)]
    snakes, languages = np.array([1.0, 0.0], dtype=np.float32), np.array([0.0, 1.0], dtype=np.float32)
    found = coherence(decided, [languages[None], np.stack([snakes, languages])], 2.0)
    assert found[1].tolist() == pytest.approx([0.0, 2.0], abs=1e-5)
    assert coherence(decided[:1], [languages[None]], 2.0)[0].tolist() == [0.0]  # nobody to agree with


def test_of_overlapping_mentions_the_longest_stays() -> None:
    def at(start: int, end: int, detector: str, score: float = 1.0) -> Mention:
        return Mention(start, end, "x" * (end - start), detector, score)

    kept = union([[at(0, 3, "dictionary", 0.5), at(10, 12, "dictionary")], [at(2, 9, "elq"), at(10, 12, "elq", 0.2)]])
    assert [(one.start, one.end, one.detector) for one in kept] == [(2, 9, "elq"), (10, 12, "dictionary+elq")]


def drawn(count: int, seed: int = 0) -> list[Example]:
    """Examples whose right candidate is drawn by softmax(2 · bm25_z + 1 · prior) against NIL's 0.5."""
    rng = np.random.default_rng(seed)
    row = JudgedMention("1", MentionContext("", "m", ""), "e")
    made = []
    for _ in range(count):
        features = {"bm25_z": rng.standard_normal(6), "prior": rng.random(6)}
        utility = 2 * features["bm25_z"] + features["prior"]
        weights = np.append(np.exp(utility), np.exp(0.5))
        gold = int(rng.choice(7, p=weights / weights.sum()))
        made.append(Example(row, gold if gold < 6 else -1, features, {}, tuple("abcdef")))
    return made


def test_coefficients_are_recovered_and_probabilities_calibrated() -> None:
    examples = drawn(4000)
    utility = fit_coefficients(examples[:2000], ["bm25_z", "prior", "cross"])
    assert utility.coefficients["bm25_z"] == pytest.approx(2.0, abs=0.2)
    assert utility.coefficients["prior"] == pytest.approx(1.0, abs=0.4)
    assert utility.nil == pytest.approx(0.5, abs=0.3)
    assert "cross" not in utility.coefficients
    found = outcomes(examples[2000:3000], utility)
    utility = Utility(utility.coefficients, utility.nil, fit_probabilities(found))
    held = outcomes(examples[3000:], utility)
    p = np.interp(held.probability_N, *zip(*utility.knots, strict=True))
    assert expected_calibration_error(p, held.right_N) < 0.06
    threshold = threshold_for(held, utility, 0.1)
    linked = p >= threshold
    assert 1 - held.right_N[linked].mean() <= 0.1
    assert linked.mean() > 0.1


@pytest.mark.parametrize("folds", [0, 5])
def test_a_profile_s_figures_are_of_mentions_that_it_was_not_fitted_on(folds: int) -> None:
    drawn_ = [
        replace(one, row=replace(one.row, context=MentionContext(f"text {number // 3}", "m", "")))
        for number, one in enumerate(drawn(1500))
    ]
    fitted = fit_profile(drawn_, None, cross=False, missing=0.0, rate=0.1, mention_encoder="", folds=folds)
    assert fitted.fast.coefficients["bm25_z"] == pytest.approx(2.0, abs=0.4)
    assert fitted.figures["fast.mentions"] == pytest.approx(1500 if folds else 500, abs=3)
    assert fitted.figures["fast.ece"] < 0.08
    assert fitted.figures["fast.false_link_rate"] == pytest.approx(0.1, abs=0.06)
    # What cannot be learned is not claimed: answers that are drawn at random are linked in no part.
    rng = np.random.default_rng(1)
    noise = [replace(one, gold=int(rng.integers(6))) for one in drawn_[:300]]
    random = fit_profile(noise, None, cross=False, missing=0.0, rate=0.1, mention_encoder="", folds=folds).figures
    assert random["fast.linked"] < 0.1
    with pytest.raises(InvalidInputError, match="bad folds"):
        fit_profile(drawn_, None, cross=False, missing=0.0, rate=0.1, mention_encoder="", folds=1)


def test_decisions_count_false_links_and_nil() -> None:
    def one(entity: str, gold: int, utility: float) -> Example:
        return Example(
            JudgedMention("1", MentionContext("", "m", ""), entity), gold, {"prior": np.array([utility, -9.0])}, {}
        )

    made = [one("a", 0, 9.0), one("b", -1, 9.0), one("", -1, 9.0), one("", -1, -9.0), one("a", 0, -9.0)]
    found = decision(made, Utility({"prior": 1.0}, 0.0), 0.5)
    assert (found.linked, found.false_links) == pytest.approx((3 / 5, 2 / 3))
    assert (found.nil_precision, found.nil_recall) == (0.5, 0.5)
    # Three at probability 1, of which a third is right, and two at 0, of which half would be.
    assert found.ece == pytest.approx((3 * 2 / 3 + 2 * 1 / 2) / 5, abs=1e-3)


def test_too_few_mentions_are_not_fitted_on() -> None:
    one = Example(
        JudgedMention("1", MentionContext("", "m", ""), "b"), 1, {"prior": np.arange(3.0)}, {}, ("a", "b", "c")
    )
    with pytest.raises(InvalidInputError, match="too few mentions"):
        fit_coefficients([one] * 49, ["prior"])


def test_a_share_of_rows_is_drawn_once_and_for_all() -> None:
    assert len(drawn_places(1000, 0.33)) == pytest.approx(330, abs=60)
    assert drawn_places(1000, 0.33) == drawn_places(1000, 0.33) != drawn_places(1000, 0.33, seed=1)
    assert drawn_places(10, 0.0) == frozenset()


def test_the_threshold_is_the_lowest_that_keeps_the_rate() -> None:
    found = Outcomes(np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, True, False, True]))
    identity = Utility({}, 0.0)
    assert threshold_for(found, identity, 0.25) == 0.6  # 1 of 4 is wrong
    assert threshold_for(found, identity, 0.2) == 0.8  # 1 of 3 would be too many
    assert threshold_for(Outcomes(np.array([0.9]), np.array([False])), identity, 0.1) == 1.0
    # Equal probabilities are linked together.
    ties = Outcomes(np.array([0.9, 0.9]), np.array([True, False]))
    assert threshold_for(ties, identity, 0.1) == 1.0


@pytest.mark.parametrize(
    ("title", "module", "kind", "expected"),
    [
        ("json.dump", "json", "function", ["dump", "dump()"]),
        ("asyncio.runners.run", "asyncio.runners", "function", ["run", "runners.run", "asyncio.run", "run()"]),
        ("posixpath.join", "posixpath", "function", ["join", "os.path.join", "join()"]),
        ("pathlib.Path.open", "pathlib", "method", ["open", "Path.open", "open()"]),
        ("datetime", "datetime", "module", ["dt"]),
    ],
)
def test_python_s_names(title: str, module: str, kind: str, expected: list[str]) -> None:
    assert set(_python_aliases(title, module, kind)) == set(expected)


def test_an_ordinary_word_needs_its_title_or_a_neighbour_to_be_a_name() -> None:
    raw = np.array([[0.5, 0.3, 0.2, 0.0]])
    named, titled = np.array([0.0, 1.0, 0.0, 1.0]), np.array([0.0, 0.0, 1.0, 0.0])
    for ordinary, expected in ((True, [1.0, 0.0, 0.0, 1.0]), (False, [0.0] * 4)):  # the last has another name
        some = Candidates(
            np.arange(4), np.arange(4), (Signal.PRIOR,), raw, raw, ({},), None, named, titled, ordinary
        )  # fmt: skip
        features = decide(some, Utility({}, 0.0), {}).features
        assert features["unsupported"].tolist() == expected
        assert features["title"].tolist() == titled.tolist()
        assert features["match"].tolist() == [1.0, 1.0, 1.0, 0.0]
    row = JudgedMention("1", MentionContext("read it", "back", ""), "")
    ordinary_word = Example(replace(row, id=f"1{REST}"), -1, {"unsupported": np.ones(2)}, {})
    perhaps_a_name = replace(ordinary_word, features={"unsupported": np.array([1.0, 0.0])})
    judged = replace(perhaps_a_name, row=row)
    assert [marked_or_ordinary(one) for one in (ordinary_word, perhaps_a_name, judged)] == [True, False, True]


def test_a_neighbour_named_in_the_title_speaks_for_a_candidate() -> None:
    raw = np.zeros((1, 2))
    some = Candidates(
        np.arange(2), np.arange(2), (Signal.BM25,), raw, raw, ({},), np.array([1.0, -1.0]), np.array([1.0, 0.0])
    )
    utility = Utility({"context_z": 0.5, "context": 2.0}, 0.0)
    decided = decide(some, utility, {})
    assert decided.utility_C.tolist() == pytest.approx([0.5 + 2.0, -0.5])  # z-scores 1 and -1, shares 1 and 0
    line = next(line for line in ledger(decided, some, 0, utility) if line.signal is Signal.CONTEXT)
    assert (line.raw, line.contribution) == (pytest.approx(1.0), pytest.approx(2.5))
