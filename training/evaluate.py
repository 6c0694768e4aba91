"""Evaluation with ir-measures: any subset of legs, per-query values, paired significance."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, cast, get_args

import numpy as np

from app.core.errors import InvalidInputError
from app.core.types import ALL_SIGNALS, SearchRequest, Signal, VdrMode
from app.search import SearchService
from training.judgements import Qrels, Run

MEASURES = ("nDCG@10", "RR@10", "R@100", "Success@1", "Success@10", "Success@100")
HYBRID = "hybrid"
DEPTH = 100
_PERMUTATIONS = 10_000


class Runner(Protocol):
    """Runs one query; document ids with scores."""

    def __call__(self, text: str) -> dict[str, float]: ...


@dataclass(frozen=True, slots=True)
class SystemResult:
    """One system's figures. `per_query` is query → measure → value; `mean` averages over the judged queries."""

    name: str
    mean: Mapping[str, float]
    per_query: Mapping[str, Mapping[str, float]]
    run: Run


@dataclass(frozen=True, slots=True)
class Comparison:
    """A paired comparison on nDCG@10: difference of means, two-sided t-test and randomisation test."""

    system: str
    baseline: str
    difference: float
    p_t_test: float
    p_randomisation: float


@dataclass(frozen=True, slots=True)
class System:
    """What a system of an evaluation asks for."""

    signals: tuple[Signal, ...]
    vdr: VdrMode | None = None
    rerank: bool = False


def systems_from(names: Sequence[str]) -> dict[str, System]:
    """Systems by name: legs joined by `+`, `hybrid` for all of them, `vdr:MODE`, `cross` for re-ranking.

    >>> systems_from(["bm25+dense"])["bm25+dense"].signals == (Signal.BM25, Signal.DENSE)
    True
    >>> systems_from(["hybrid+cross"])["hybrid+cross"].rerank
    True
    >>> systems_from(["vdr:alpha"])["vdr:alpha"].vdr
    'alpha'
    """
    return {name: _system(name) for name in names}


def _system(name: str) -> System:
    signals: list[Signal] = []
    vdr: VdrMode | None = None
    rerank = False
    for part in name.split("+"):
        leg, colon, mode = part.partition(":")
        if part == Signal.CROSS:
            rerank = True
        elif part == HYBRID:
            signals += ALL_SIGNALS
        elif leg in set(ALL_SIGNALS) and (not colon or (leg == Signal.VDR and mode in get_args(VdrMode))):
            signals.append(Signal(leg))
            vdr = cast("VdrMode", mode) if colon else vdr
        else:
            raise InvalidInputError(
                "unknown system",
                received=name,
                expected=f"{', '.join(ALL_SIGNALS)}, hybrid, vdr:MODE, joined by +, and +cross to re-rank",
            )
    if not signals or len(set(signals)) != len(signals):
        raise InvalidInputError("a system runs each leg once", received=name, expected="such as bm25+dense")
    return System(tuple(signals), vdr, rerank)


def search_runner(service: SearchService, collection: str, request: SearchRequest) -> Runner:
    """A runner over the search use case. Scores are made strictly descending so that ties keep our order."""

    def run(text: str) -> dict[str, float]:
        result = service.search(collection, replace(request, query=text))
        return {hit.doc_id: float(len(result.hits) - at) for at, hit in enumerate(result.hits)}

    return run


def run_queries(queries: Mapping[str, str], runner: Runner, progress: Callable[[int], None] = lambda _: None) -> Run:
    """Run every query."""
    run: Run = {}
    for query, text in queries.items():
        run[query] = runner(text)
        progress(1)
    return run


def measure(name: str, qrels: Qrels, run: Run, measures: Sequence[str] = MEASURES) -> SystemResult:
    """Figures of a run. A judged query without an answer counts as 0."""
    import ir_measures

    parsed = [ir_measures.parse_measure(one) for one in measures]
    answered = {query: scores for query, scores in run.items() if scores and query in qrels}
    per_query: dict[str, dict[str, float]] = {query: dict.fromkeys(measures, 0.0) for query in qrels}
    for value in ir_measures.iter_calc(parsed, qrels, answered):
        per_query[value.query_id][str(value.measure)] = float(value.value)
    mean = {one: float(np.mean([values[one] for values in per_query.values()])) for one in measures}
    return SystemResult(name, mean, per_query, run)


def compare(system: SystemResult, baseline: SystemResult, measure_name: str = "nDCG@10", seed: int = 0) -> Comparison:
    """Paired tests over the same queries (Smucker, Allan & Carterette 2007)."""
    from scipy.stats import ttest_rel

    queries = sorted(system.per_query)
    ours = np.array([system.per_query[q][measure_name] for q in queries])
    theirs = np.array([baseline.per_query[q][measure_name] for q in queries])
    delta = ours - theirs
    if not delta.any():
        return Comparison(system.name, baseline.name, 0.0, 1.0, 1.0)
    p_t = float(ttest_rel(ours, theirs).pvalue)
    rng = np.random.default_rng(seed)
    observed = abs(delta.mean())
    extreme = 0
    for _ in range(10):
        signs = rng.choice(np.array([-1.0, 1.0]), size=(_PERMUTATIONS // 10, len(delta)))
        extreme += int((np.abs((signs * delta).mean(axis=1)) >= observed - 1e-12).sum())
    return Comparison(system.name, baseline.name, float(delta.mean()), p_t, (extreme + 1) / (_PERMUTATIONS + 1))


def plot(results: Sequence[SystemResult], path: Path, title: str, measures: Sequence[str] = MEASURES) -> None:
    """A bar chart of the systems' figures."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(10, 4.5))
    width = 0.8 / len(results)
    places = np.arange(len(measures))
    for at, result in enumerate(results):
        values = [result.mean[one] for one in measures]
        bars = axes.bar(places + at * width, values, width, label=result.name)
        axes.bar_label(bars, fmt="%.3f", fontsize=6, rotation=90, padding=2)
    axes.set_xticks(places + 0.4 - width / 2, measures)
    axes.set_ylim(0, 1.12)
    axes.set_title(title)
    axes.legend(ncols=len(results), fontsize=8, loc="upper left")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
