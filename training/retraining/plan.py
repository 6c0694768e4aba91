"""Plans the retraining of a collection's encoder: splits the data, and decides whether the result may be published.

The training data are generated questions (`inverse_cloze`) and clicks. Human judgements are never used for training.
They, and generated questions of held-out documents, are the test set of the gate that a candidate must pass.
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
"""The signals that can be retrained, and the recipe for each."""
MEASURE = "nDCG@10"
LEAST_GRADE = 2
"""The lowest grade at which a judgement derived from clicks becomes a training row."""
_RBO_P = 0.9
_RBO_DEPTH = 10
_DEV_SHARE = 0.05
_OPTIONS = frozenset({
    "steps", "batch", "accumulate", "negatives", "distil", "teacher_temperature", "gold_bonus", "temperature",
    "head_learning_rate", "weight_decay", "warm_up", "clip", "flops", "contrastive_mask", "query_tokens",
    "passage_tokens", "query_top_k", "passage_top_k", "seed", "evaluate_every", "patience", "checkpoint_every",
})  # fmt: skip
"""The recipe options that a plan may change: neither the base model nor its architecture."""
_MOST_DAYS = 36_600
_MOST = {"rows": 100_000, "held_out": 10_000, "least_judged": 10_000}
Publish = Literal["approve", "auto"]


@dataclass(frozen=True, slots=True)
class Gate:
    """The conditions that a candidate must meet to be published. nDCG@10 is tested with one-sided 95 % lower bounds."""

    worse: float = 0.02
    """Non-inferiority margin: the largest allowed loss in nDCG@10 with all signals, on judged and held-out queries."""
    gain: float = 0.0
    """The gain in nDCG@10 that the trained signal alone must exceed on held-out questions."""
    least_overlap: float = 0.5
    """The lowest allowed mean rank-biased overlap of the top ten documents with those of the serving generation."""
    least_judged: int = 20
    """With fewer judged queries than this, a person must approve the candidate."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The parameters of a retraining job."""

    target: str = "vdr"
    options: Mapping[str, str] = field(default_factory=dict)
    """Changes to the recipe, as with `hyblink train --set`."""
    rows: int = 2000
    """Maximum number of generated questions for training."""
    held_out: int = 400
    """Maximum number of generated questions in the test set; 300 or more are advisable."""
    clicks: bool = True
    """Also train on clicks."""
    days: float = 0.0
    """Use only clicks of the last so many days; 0 uses all."""
    publish: Publish = "approve"
    """`auto` publishes a candidate that passes the gate with enough judged queries; `approve` waits for a person."""
    gate: Gate = Gate()

    @property
    def signal(self) -> Signal:
        """The signal that is retrained."""
        return Signal(self.target)

    def config(self) -> RunConfig:
        """The configuration of the training run. Raises InvalidInputError for bad options."""
        return recipe(TARGETS[self.target], self.options)


def plan_from(params: Mapping[str, Any]) -> Plan:
    """Build a plan from a JSON object. Raises InvalidInputError for unknown fields or values out of range."""
    gate = params.get("gate", {})
    for name, value, known in (("plan", params, Plan), ("gate", gate, Gate)):
        if not isinstance(value, Mapping):
            raise InvalidInputError(f"bad {name}", received=type(value).__name__, expected="an object")
        allowed = [field.name for field in fields(known)]
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
    """Training rows, dev rows (for early stopping) and test queries of a retraining.

    Test queries are held-out generated questions and judged queries, by query id, each with qrels. Queries with human
    judgements are in no other part.
    """

    rows: tuple[TrainingRow, ...]
    dev: tuple[TrainingRow, ...]
    held_out: Mapping[str, str]
    held_out_qrels: Qrels
    judged: Mapping[str, str]
    judged_qrels: Qrels
    left_out: int = 0
    """Number of judged queries that are not used because none of their relevant documents exists."""

    def counts(self) -> dict[str, int]:
        """The number of rows or queries in each part."""
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
    """Split the data into training rows, dev rows and test queries.

    Judgements by people and imports become test queries. Judgements derived from clicks become training rows, if they
    are not older than `since`. 5 % of the rows are dev rows, chosen by a hash of their id. `text_of` returns the text
    of a document, or None if it does not exist. Raises InvalidInputError if there are no training rows.
    """
    judged: dict[str, str] = {}
    qrels: Qrels = {}
    clicked: dict[str, tuple[str, list[str]]] = {}
    for judgement in judgements:
        key = query_key(judgement.query)
        if judgement.source != "clicks":
            judged[f"judged/{digest(key):016x}"] = judgement.query
            qrels.setdefault(f"judged/{digest(key):016x}", {})[judgement.document_id] = judgement.grade
        elif plan.clicks and judgement.grade >= LEAST_GRADE and judgement.at >= since:
            clicked.setdefault(key, (judgement.query, []))[1].append(judgement.document_id)
    asked = {query_key(query) for query in judged.values()}
    telling = {
        query
        for query, grades in qrels.items()
        if any(grade > 0 and text_of(document) is not None for document, grade in grades.items())
    }
    ordered = sorted(
        (item for item in generated if query_key(item.query) not in asked),
        key=lambda item: digest("order", item.document_id),
    )
    held_out = [item for item in ordered if item.held_out][: plan.held_out]
    learned = [item for item in ordered if not item.held_out][: plan.rows]
    rows = [
        TrainingRow(item.query, (Text(item.answer, item.title, item.document_id),), id=f"generated/{item.document_id}")
        for item in learned
    ]
    closed = {item.document_id for item in held_out}
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
        {f"held-out/{item.document_id}": item.query for item in held_out},
        {f"held-out/{item.document_id}": {item.document_id: 1} for item in held_out},
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
    """The rankings of a generation for some queries (query id → text), with its own ranking profile.

    Raises UnavailableError if a signal did not answer, because incomplete rankings cannot be compared.
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


def overlap(sequence: Sequence[str], other: Sequence[str], p: float = _RBO_P, depth: int = _RBO_DEPTH) -> float:
    """Extrapolated rank-biased overlap of two rankings, 0 to 1 (RBO_EXT; Webber, Moffat & Zobel 2010).

    >>> overlap(["a", "b"], ["a", "b"])
    1.0
    >>> overlap(["a"], ["b"])
    0.0
    """
    depth = min(depth, max(len(sequence), len(other)))
    if not depth:
        return 1.0
    shared, total = 0, 0.0
    for d in range(1, depth + 1):
        shared = len(set(sequence[:d]) & set(other[:d]))
        total += shared / d * p**d
    return round(shared / depth * p**depth + (1 - p) / p * total, 12)


def lower_bound(differences: Sequence[float], confidence: float = 0.95) -> float:
    """The one-sided lower confidence bound of the mean of paired differences (Student's t); -inf for fewer than two."""
    from scipy.stats import t

    if len(differences) < 2:
        return float("-inf")
    values = np.asarray(differences, dtype=np.float64)
    margin = t.ppf(confidence, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return float(values.mean() - margin)


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one condition of the gate: the measured value, its bound, and the number of queries.

    `says` is a message for people.
    """

    name: str
    value: float
    bound: float
    queries: int
    passed: bool
    says: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of the gate. `certain` is True if there were enough test queries to decide without a person."""

    passed: bool
    certain: bool
    checks: tuple[Check, ...]
    figures: Mapping[str, Any]

    @property
    def reasons(self) -> str:
        """Messages about the failed conditions."""
        return "; ".join(check.says for check in self.checks if not check.passed)

    def plain(self) -> dict[str, Any]:
        """The verdict as a JSON object."""
        return {
            "passed": self.passed,
            "certain": self.certain,
            "checks": [asdict(check) for check in self.checks],
            "figures": dict(self.figures),
        }


@dataclass(frozen=True, slots=True)
class Answers:
    """The rankings of a generation.

    `whole`: all test queries with all signals. `alone`: held-out questions with the retrained signal only.
    """

    whole: Run
    alone: Run


def judge(gate: Gate, data: Data, serving: Answers, candidate: Answers) -> Verdict:
    """Decide whether `candidate` may replace `serving`, from paired differences per query.

    The full ranking must not be worse by more than the margin, the retrained signal alone must be better, and the
    rankings must overlap enough. A condition with fewer than two queries is skipped.
    """
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
            "serving": {item: round(was.mean[item], 4) for item in MEASURES},
            "candidate": {item: round(now.mean[item], 4) for item in MEASURES},
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
    return Verdict(all(check.passed for check in checks), certain, tuple(checks), figures)


def _gain(name: str, says: str, before: SystemResult, after: SystemResult, bound: float, *, strict: bool) -> Check:
    queries = sorted(before.per_query)
    differences = [after.per_query[query][MEASURE] - before.per_query[query][MEASURE] for query in queries]
    value = lower_bound(differences)
    wanted = "more than" if strict else "at least"
    told = (
        f"on {len(queries)} {says} the gain in {MEASURE} is {np.mean(differences):+.4f}, "
        f"with 95 % confidence at least {value:+.4f}; {wanted} {bound:+g} expected"
    )
    return Check(name, value, bound, len(queries), value > bound if strict else value >= bound, told)


def _ranked(scores: Mapping[str, float]) -> list[str]:
    return sorted(scores, key=lambda score: -scores[score])
