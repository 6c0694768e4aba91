"""Retraining by what a collection itself says: what is learned from, and whether the outcome may answer.

Learned from are questions that the corpus gives (`training.generated`) and clicks. What people have judged is never
learned from: it is the gate, beside generated questions of documents that were held out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, get_args

import numpy as np

from hyblink.app.core.errors import InvalidInputError, UnavailableError
from hyblink.app.core.types.ranking import DEFAULT_SIGNALS, Signal
from hyblink.app.core.types.search import SearchRequest
from hyblink.app.evaluation.measures import SystemResult, measure
from hyblink.app.evaluation.qrels import Qrels
from hyblink.app.evaluation.runs import Run
from hyblink.app.evaluation.systems import DEPTH, MEASURES
from hyblink.app.feedback.feedback import Judgement, query_key
from hyblink.app.search.service import SearchService
from hyblink.training.data.rows import Text, TrainingRow
from hyblink.training.recipes import recipe
from hyblink.training.retraining.inverse_cloze import Generated, digest
from hyblink.training.run_config import RunConfig

TARGETS = {Signal.VDR.value: "vdr_again"}
"""What can be trained anew while a collection is served, and the recipe that does it."""
MEASURE = "nDCG@10"
LEAST_GRADE = 2
"""A click's judgement from this grade on is a row to learn from."""
_RBO_P = 0.9
_RBO_DEPTH = 10
_DEV_SHARE = 0.05
_OPTIONS = frozenset({
    "steps", "batch", "accumulate", "negatives", "distil", "teacher_temperature", "gold_bonus", "temperature",
    "head_learning_rate", "weight_decay", "warm_up", "clip", "flops", "contrastive_mask", "query_tokens",
    "passage_tokens", "query_top_k", "passage_top_k", "seed", "evaluate_every", "patience", "checkpoint_every",
})  # fmt: skip
"""What of a recipe may be changed: not the model, not its form."""
_MOST_DAYS = 36_600
_MOST = {"rows": 100_000, "held_out": 10_000, "least_judged": 10_000}
Publish = Literal["approve", "auto"]


@dataclass(frozen=True, slots=True)
class Gate:
    """What a candidate has to show before it may answer. Bounds are one-sided, with a confidence of 95 %."""

    worse: float = 0.02
    """With all signals, on judged queries and on held-out questions, its nDCG@10 is worse by at most so much."""
    gain: float = 0.0
    """By the trained signal alone, on held-out questions, its nDCG@10 is better by more than this."""
    least_overlap: float = 0.5
    """Least mean rank-biased overlap of its first ten documents with those of what answers now."""
    least_judged: int = 20
    """With fewer judged queries a person has to approve it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a retraining does."""

    target: str = "vdr"
    options: Mapping[str, str] = field(default_factory=dict)
    """Changes of the recipe, as `hyblink train --set`."""
    rows: int = 2000
    """Most generated questions that are learned from."""
    held_out: int = 400
    """Most generated questions that are held out; at least 300 where the corpus has as many."""
    clicks: bool = True
    """Learn from what clicks say as well."""
    days: float = 0.0
    """Only from clicks of so many days; 0: of all."""
    publish: Publish = "approve"
    gate: Gate = Gate()

    @property
    def signal(self) -> Signal:
        """The signal that is trained anew."""
        return Signal(self.target)

    def config(self) -> RunConfig:
        """The run's configuration. Raises InvalidInputError for options that make no sense."""
        return recipe(TARGETS[self.target], self.options)


def plan_from(params: Mapping[str, Any]) -> Plan:
    """A plan from plain JSON. Raises InvalidInputError naming what is not known or out of range."""
    gate = params.get("gate", {})
    for name, value, known in (("plan", params, Plan), ("gate", gate, Gate)):
        if not isinstance(value, Mapping):
            raise InvalidInputError(f"bad {name}", received=type(value).__name__, expected="an object")
        allowed = [one.name for one in fields(known)]
        if unknown := sorted(set(value) - set(allowed)):
            raise InvalidInputError(f"unknown fields of the {name}", received=unknown, expected=", ".join(allowed))
    try:
        plan = Plan(**{**params, "gate": Gate(**gate)})
        plan = replace(plan, options={str(key): str(value) for key, value in plan.options.items()})
    except (TypeError, AttributeError) as error:
        raise InvalidInputError(f"bad plan: {error}") from error
    if plan.target not in TARGETS:
        raise InvalidInputError("unknown target", received=plan.target, expected=", ".join(TARGETS))
    if plan.publish not in get_args(Publish):
        raise InvalidInputError("bad publish", received=plan.publish, expected=", ".join(get_args(Publish)))
    numbers = {"rows": plan.rows, "held_out": plan.held_out, "least_judged": plan.gate.least_judged}
    for name, number in numbers.items():
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number <= _MOST[name]:
            raise InvalidInputError(f"{name} is out of range", received=number, expected=f"0 to {_MOST[name]}")
    if plan.rows < 1:
        raise InvalidInputError("rows is out of range", received=plan.rows, expected="1 or more")
    for name, share in {"worse": plan.gate.worse, "least_overlap": plan.gate.least_overlap}.items():
        if not _finite(share) or not 0 <= share <= 1:
            raise InvalidInputError(f"{name} is out of range", received=share, expected="0 to 1")
    if not _finite(plan.gate.gain) or not -1 <= plan.gate.gain <= 1:
        raise InvalidInputError("gain is out of range", received=plan.gate.gain, expected="-1 to 1")
    if not _finite(plan.days) or not 0 <= plan.days <= _MOST_DAYS:
        raise InvalidInputError("days is out of range", received=plan.days, expected=f"0 to {_MOST_DAYS}")
    if unknown := sorted(set(plan.options) - _OPTIONS):
        raise InvalidInputError("bad options", received=unknown, expected=f"some of {', '.join(sorted(_OPTIONS))}")
    plan.config()
    return plan


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(frozen=True, slots=True)
class Data:
    """What a retraining learns from, looks at meanwhile, and is measured on. The three share no query."""

    rows: tuple[TrainingRow, ...]
    dev: tuple[TrainingRow, ...]
    held_out: Mapping[str, str]
    held_out_qrels: Qrels
    judged: Mapping[str, str]
    judged_qrels: Qrels
    left_out: int = 0
    """Judged queries of which no document is relevant and there: they tell nothing."""

    def counts(self) -> dict[str, int]:
        """How many of each."""
        clicked = sum(row.id.startswith("clicks/") for row in self.rows)
        return {
            "rows": len(self.rows),
            "from_clicks": clicked,
            "dev": len(self.dev),
            "held_out": len(self.held_out),
            "judged": len(self.judged),
            "left_out": self.left_out,
        }


def split(
    generated: Iterable[Generated],
    judgements: Iterable[Judgement],
    text_of: Callable[[str], Text | None],
    plan: Plan,
    *,
    since: str = "",
) -> Data:
    """Who is learned from and who is asked. Judgements of people and imports are asked; those of clicks are rows.

    `since` is the earliest moment of a click's judgement. Raises InvalidInputError where nothing can be learned from.
    """
    judged: dict[str, str] = {}
    qrels: Qrels = {}
    clicked: dict[str, tuple[str, list[str]]] = {}
    for one in judgements:
        key = query_key(one.query)
        if one.source != "clicks":
            judged[f"judged/{digest(key):016x}"] = one.query
            qrels.setdefault(f"judged/{digest(key):016x}", {})[one.document_id] = one.grade
        elif plan.clicks and one.grade >= LEAST_GRADE and one.at >= since:
            clicked.setdefault(key, (one.query, []))[1].append(one.document_id)
    asked = {query_key(query) for query in judged.values()}
    telling = {
        query
        for query, grades in qrels.items()
        if any(grade > 0 and text_of(document) is not None for document, grade in grades.items())
    }
    ordered = sorted(
        (one for one in generated if query_key(one.query) not in asked),
        key=lambda one: digest("order", one.document_id),
    )
    held_out = [one for one in ordered if one.held_out][: plan.held_out]
    learned = [one for one in ordered if not one.held_out][: plan.rows]
    rows = [
        TrainingRow(one.query, (Text(one.answer, one.title, one.document_id),), id=f"generated/{one.document_id}")
        for one in learned
    ]
    closed = {one.document_id for one in held_out}
    for key, (query, documents) in sorted(clicked.items()):
        found = [text for text in (text_of(doc) for doc in documents if doc not in closed) if text is not None]
        if key not in asked and found:
            rows.append(TrainingRow(query, tuple(found), id=f"clicks/{digest(key):016x}"))
    if not rows:
        raise InvalidInputError(
            "nothing to learn from", received="no sentence that could be a question, and no clicks",
            expected="documents with sentences, or clicks",
        )  # fmt: skip
    dev_ids = {row.id for row in rows if digest("dev", row.id) % 10_000 < _DEV_SHARE * 10_000}
    if len(dev_ids) == len(rows):
        dev_ids = set()
    return Data(
        tuple(row for row in rows if row.id not in dev_ids),
        tuple(row for row in rows if row.id in dev_ids),
        {f"held-out/{one.document_id}": one.query for one in held_out},
        {f"held-out/{one.document_id}": {one.document_id: 1} for one in held_out},
        {query: text for query, text in judged.items() if query in telling},
        {query: grades for query, grades in qrels.items() if query in telling},
        len(judged) - len(telling),
    )


def runs_of(
    search: SearchService,
    collection: str,
    generation: str,
    queries: Mapping[str, str],
    progress: Callable[[int], None] = lambda _: None,
    signals: tuple[Signal, ...] = DEFAULT_SIGNALS,
) -> Run:
    """What a generation answers to queries, by the ranking profile that it has.

    Raises UnavailableError where a signal did not answer: what is measured is the whole.
    """
    request = SearchRequest("-", k=DEPTH, candidates=2 * DEPTH, signals=signals, highlight=False, generation=generation)
    run: Run = {}
    for query, text in queries.items():
        result = search.search(collection, replace(request, query=text))
        if result.missing:
            why = "; ".join(f"{leg.signal}: {leg.error}" for leg in result.legs if leg.error)
            raise UnavailableError("a signal did not answer while generations were compared", received=why)
        run[query] = {hit.doc_id: float(len(result.hits) - at) for at, hit in enumerate(result.hits)}
        progress(1)
    return run


def overlap(one: Sequence[str], other: Sequence[str], p: float = _RBO_P, depth: int = _RBO_DEPTH) -> float:
    """Rank-biased overlap of two rankings, extrapolated (RBO_EXT; Webber, Moffat & Zobel 2010); 1 where equal.

    >>> overlap(["a", "b"], ["a", "b"])
    1.0
    >>> overlap(["a"], ["b"])
    0.0
    """
    depth = min(depth, max(len(one), len(other)))
    if not depth:
        return 1.0
    shared, total = 0, 0.0
    for d in range(1, depth + 1):
        shared = len(set(one[:d]) & set(other[:d]))
        total += shared / d * p**d
    return round(shared / depth * p**depth + (1 - p) / p * total, 12)


def lower_bound(differences: Sequence[float], confidence: float = 0.95) -> float:
    """The lower end of a one-sided interval for the mean of paired differences, by Student's t; -inf for under two."""
    from scipy.stats import t

    if len(differences) < 2:
        return float("-inf")
    values = np.asarray(differences, dtype=np.float64)
    margin = t.ppf(confidence, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return float(values.mean() - margin)


@dataclass(frozen=True, slots=True)
class Check:
    """One condition of the gate: what was measured against which bound, over how many queries."""

    name: str
    value: float
    bound: float
    queries: int
    passed: bool
    says: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate says. `certain`: there were enough judged queries to do without a person."""

    passed: bool
    certain: bool
    checks: tuple[Check, ...]
    figures: Mapping[str, Any]

    @property
    def reasons(self) -> str:
        """What was not passed, in words."""
        return "; ".join(one.says for one in self.checks if not one.passed)

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "passed": self.passed,
            "certain": self.certain,
            "checks": [asdict(one) for one in self.checks],
            "figures": dict(self.figures),
        }


@dataclass(frozen=True, slots=True)
class Answers:
    """What a generation answers: to all queries with all signals, to held-out ones with the target alone."""

    whole: Run
    alone: Run


def judge(gate: Gate, data: Data, serving: Answers, candidate: Answers) -> Verdict:
    """Compare two generations query by query. What people get must not be worse; the signal itself has to be better."""
    checks = []
    figures: dict[str, Any] = {}
    held_out = data.held_out_qrels
    for name, says, qrels, before, after, bound in (
        ("judged", "judged queries", data.judged_qrels, serving.whole, candidate.whole, -gate.worse),
        ("held_out", "held-out questions", held_out, serving.whole, candidate.whole, -gate.worse),
        ("signal", "held-out questions by this signal alone", held_out, serving.alone, candidate.alone, gate.gain),
    ):
        if len(qrels) < 2:
            continue
        was, now = measure("serving", qrels, before), measure("candidate", qrels, after)
        found = _gain(name, says, was, now, bound, strict=name == "signal")
        figures[name] = {
            "queries": len(qrels),
            "serving": {one: round(was.mean[one], 4) for one in MEASURES},
            "candidate": {one: round(now.mean[one], 4) for one in MEASURES},
            "gain": round(now.mean[MEASURE] - was.mean[MEASURE], 4),
            "lower_bound": round(found.value, 4),
        }
        checks.append(found)
    queries = [*data.judged, *data.held_out]
    same = [overlap(_ranked(serving.whole[query]), _ranked(candidate.whole[query])) for query in queries]
    mean = float(np.mean(same)) if same else 1.0
    figures["overlap"] = round(mean, 4)
    says = f"rankings overlap by {mean:.3f}, at least {gate.least_overlap:g} expected"
    checks.append(Check("overlap", mean, gate.least_overlap, len(same), mean >= gate.least_overlap, says))
    certain = len(data.judged) >= max(2, gate.least_judged) and len(held_out) >= 2
    return Verdict(all(one.passed for one in checks), certain, tuple(checks), figures)


def _gain(name: str, says: str, before: SystemResult, after: SystemResult, bound: float, *, strict: bool) -> Check:
    queries = sorted(before.per_query)
    differences = [after.per_query[one][MEASURE] - before.per_query[one][MEASURE] for one in queries]
    value = lower_bound(differences)
    wanted = "more than" if strict else "at least"
    told = (
        f"on {len(queries)} {says} the gain in {MEASURE} is {np.mean(differences):+.4f}, "
        f"with 95 % confidence at least {value:+.4f}; {wanted} {bound:+g} expected"
    )
    return Check(name, value, bound, len(queries), value > bound if strict else value >= bound, told)


def _ranked(scores: Mapping[str, float]) -> list[str]:
    return sorted(scores, key=lambda one: -scores[one])
