"""Compute retrieval measures such as nDCG@10 with ir-measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hyblink.app.evaluation.qrels import Qrels
from hyblink.app.evaluation.runs import Run
from hyblink.app.evaluation.systems import MEASURES


@dataclass(frozen=True, slots=True)
class SystemResult:
    """The measures of one system: `per_query` is query → measure → value, `mean` the mean over the judged queries."""

    name: str
    mean: Mapping[str, float]
    per_query: Mapping[str, Mapping[str, float]]
    run: Run


def measure(name: str, qrels: Qrels, run: Run, measures: Sequence[str] = MEASURES) -> SystemResult:
    """Compute the measures of a run. A judged query without results counts as 0; unjudged queries are ignored."""
    import ir_measures

    parsed = [ir_measures.parse_measure(item) for item in measures]
    answered = {query: scores for query, scores in run.items() if scores and query in qrels}
    per_query: dict[str, dict[str, float]] = {query: dict.fromkeys(measures, 0.0) for query in qrels}
    for value in ir_measures.iter_calc(parsed, qrels, answered):
        per_query[value.query_id][str(value.measure)] = float(value.value)
    mean = {item: float(np.mean([values[item] for values in per_query.values()])) for item in measures}
    return SystemResult(name, mean, per_query, run)
