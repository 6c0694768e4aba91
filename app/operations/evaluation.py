"""Evaluate a collection on judged queries, and tune its ranking profile on them."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hyblink.app.application import App
from hyblink.app.core.errors import InvalidInputError, UnavailableError
from hyblink.app.core.progress import Progress, silent
from hyblink.app.core.types.ranking import RankingProfile, RerankRequest, Signal
from hyblink.app.core.types.search import SearchRequest
from hyblink.app.evaluation.beir import read_beir
from hyblink.app.evaluation.measures import SystemResult, measure
from hyblink.app.evaluation.qrels import Qrels
from hyblink.app.evaluation.runs import read_run
from hyblink.app.evaluation.significance import Comparison, compare
from hyblink.app.evaluation.systems import DEPTH, HYBRID, System, run_queries, search_runner, systems_from
from hyblink.app.operations.encoding import encode_queries_ahead
from hyblink.app.operations.evaluation_notes import Seen, check_before
from hyblink.ranker.signals.registry import proposing
from hyblink.ranker.tuning import (
    CrossTuning,
    JudgedPool,
    RerankedPool,
    Tuning,
    ideal_dcg,
    judged_pool,
    tune,
    tune_cross,
)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The measures of each system on one split, and paired tests against the baseline.

    That is the system that was named as such, else the best one other than `hybrid`.
    """

    folder: str
    split: str
    queries: int
    generation: str
    results: tuple[SystemResult, ...]
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...] = ()
    """What the figures do not show: passages not encoded yet, judged documents that are missing, what was left out."""


def evaluate(
    app: App,
    folder: Path,
    split: str = "test",
    *,
    collection: str = "default",
    systems: Sequence[str] = ("bm25", "vdr", "dense", HYBRID),
    runs: Sequence[Path] = (),
    limit: int | None = None,
    rerank_ms: float = 10_000,
    generation: str | None = None,
    baseline: str | None = None,
    progress: Progress = silent,
) -> Evaluation:
    """Measure systems, and TREC run files in `runs`, on the judged queries of a BEIR folder.

    `limit` is the largest number of queries, taken evenly spread. `rerank_ms` is the re-ranking budget of one query.
    `baseline` names the system, or the run file without its suffix, that others are compared with. All is checked
    before the first search. Raises NotFoundError, and InvalidInputError for an unknown system or baseline, for a query
    that no search may have, and for a collection without any of the judged documents.
    """
    queries, qrels = read_beir(folder, split)
    if limit and limit < len(queries):
        ids = list(queries)
        queries = {ids[at]: queries[ids[at]] for at in (n * len(ids) // limit for n in range(limit))}
        qrels = {query: qrels[query] for query in queries}
    chosen = systems_from(systems)
    names = [*chosen, *(path.stem for path in runs)]
    if baseline is not None and baseline not in names:
        raise InvalidInputError("unknown baseline", received=baseline, expected=f"one of {', '.join(names)}")
    requests = {name: _request(app, system, rerank_ms, generation) for name, system in chosen.items()}
    notes: list[str] = []
    if chosen:
        notes += check_before(app, collection, generation, queries, qrels, list(requests.values()))
        encode_queries_ahead(app, collection, list(queries.values()), generation)
    if any(system.rerank for system in chosen.values()):
        app.encoders.cross().load()
    results = []
    for name in chosen:
        seen = Seen(name)
        runner = search_runner(app.search, collection, requests[name], seen.result)
        results.append(measure(name, qrels, run_queries(queries, runner, progress(name, len(queries)))))
        notes += seen.notes()
    results += [measure(path.stem, qrels, read_run(path)) for path in runs]
    against = [r for r in results if (r.name == baseline if baseline else r.name != HYBRID)]
    best = max(against, key=lambda r: r.mean["nDCG@10"], default=None)
    comparisons = [compare(result, best) for result in results if best and result is not best]
    current = generation or app.catalog.current(collection)
    return Evaluation(folder.name, split, len(qrels), current, tuple(results), tuple(comparisons), tuple(notes))


def _request(app: App, system: System, rerank_ms: float, generation: str | None) -> SearchRequest:
    settings = app.settings.search
    return SearchRequest(
        "",
        k=DEPTH,
        candidates=settings.candidates,
        signals=system.signals,
        highlight=False,
        passages_per_document=1,
        vdr=system.vdr,
        rerank=RerankRequest(settings.rerank_top, rerank_ms) if system.rerank else None,
        generation=generation,
    )


@dataclass(frozen=True, slots=True)
class TunedProfile:
    """The tuned ranking profile with its cross-validated quality.

    `cross` holds the tuning of the cross-encoder's weight, None if there was no re-ranking. `saved` says whether the
    profile was stored.
    """

    profile: RankingProfile
    tuning: Tuning
    cross: CrossTuning | None
    saved: bool


def tune_profile(
    app: App,
    folder: Path,
    split: str = "train",
    *,
    collection: str = "default",
    folds: int = 5,
    limit: int | None = None,
    rerank: int = 0,
    save: bool = True,
    progress: Progress = silent,
) -> TunedProfile:
    """Tune the fusion on judged queries; with `save`, store the result as the collection's next ranking profile.

    `rerank` above 0 also tunes the cross-encoder's weight on that many documents per query. `limit` is the largest
    number of queries, sampled with a fixed seed. Raises NotFoundError, InvalidInputError for `rerank` out of range.
    """
    largest = min(app.settings.search.max_rerank, app.settings.search.candidates)
    if rerank > largest:
        raise InvalidInputError("rerank is out of range", received=rerank, expected=f"at most {largest}")
    queries, qrels = read_beir(folder, split)
    ids = list(queries)
    if limit and limit < len(ids):
        ids = random.Random(0).sample(ids, limit)
    encode_queries_ahead(app, collection, [queries[query] for query in ids])
    pools = _pools(app, collection, ids, queries, qrels, progress)
    signals = [name for name in proposing() if all(name in pool.scores.signals for pool in pools)]
    found = tune(pools, signals, folds=folds, progress=progress("settings", len(ids)))
    profile = replace(
        found.profile,
        origin=f"tuned on {found.queries} queries of {folder.name} {split}: nDCG@10 {found.cross_validated:.4f} "
        f"({found.folds}-fold cross-validated), single legs "
        + ", ".join(f"{s.value} {v:.4f}" for s, v in found.single.items()),
    )
    cross = None
    if rerank:
        app.encoders.cross().load()
        advance, reranked = progress("re-ranking", len(ids)), []
        base = SearchRequest("", k=rerank, candidates=app.settings.search.candidates)
        for query in ids:
            request = replace(base, query=queries[query])
            reranked.append(_reranked_pool(app, collection, request, profile, qrels[query]))
            advance()
        cross = tune_cross(reranked, folds=folds)
        profile = replace(
            profile,
            weights={**profile.weights, Signal.CROSS: cross.weight},
            origin=f"{profile.origin}; the first {rerank} re-ranked {cross.without:.4f} → {cross.cross_validated:.4f}",
        )
    if save:
        profile = app.catalog.save_profile(collection, profile)
    return TunedProfile(profile, found, cross, save)


def _pools(
    app: App, collection: str, ids: Sequence[str], queries: Mapping[str, str], qrels: Qrels, progress: Progress
) -> list[JudgedPool]:
    advance, pools = progress("candidates", len(ids)), []
    for query in ids:
        request = SearchRequest(queries[query], k=1, candidates=app.settings.search.candidates)
        scores, documents = app.search.pool(collection, request)
        pools.append(judged_pool(scores, documents, qrels[query]))
        advance()
    return pools


def _reranked_pool(
    app: App, collection: str, request: SearchRequest, profile: RankingProfile, grades: Mapping[str, int]
) -> RerankedPool:
    """A query's top documents: scores under the profile, cross-encoder scores and grades.

    Raises UnavailableError unless every document was re-ranked.
    """
    result = app.search.search(
        collection,
        replace(
            request,
            highlight=False,
            passages_per_document=1,
            fusion=profile.fusion,
            normalization=profile.normalization,
            weights={**profile.weights, Signal.CROSS: 0.0},
            rerank=RerankRequest(request.k, app.settings.search.deadline_ms),
        ),
    )
    report = result.rerank
    if report is None or report.error or report.skipped:
        raise UnavailableError(
            "not everything was re-ranked",
            received="nothing" if report is None else report.error or f"{report.skipped} skipped",
            expected="all within search.deadline_ms",
        )
    hits = result.hits
    lines = [next((s for s in hit.passages[0].signals if s.signal is Signal.CROSS), None) for hit in hits]
    raw = [line.raw if line and line.raw is not None else float("nan") for line in lines]
    done = [at for at, value in enumerate(raw) if np.isfinite(value)]
    return RerankedPool(
        np.array([hits[at].score for at in done]),
        np.array([raw[at] for at in done]),
        np.array([float(max(0, grades.get(hits[at].doc_id, 0))) for at in done]),
        ideal_dcg(grades),
    )


def tuned_as_json(tuned: TunedProfile) -> dict[str, Any]:
    """Return a tuning result as JSON-serialisable data."""
    from dataclasses import asdict

    from hyblink.app.engines.profile_json import profile_to_json

    return {
        "profile": profile_to_json(tuned.profile),
        "cross_validated": tuned.tuning.cross_validated,
        "in_sample": tuned.tuning.in_sample,
        "single": {signal.value: value for signal, value in tuned.tuning.single.items()},
        "rerank": asdict(tuned.cross) if tuned.cross else None,
        "queries": tuned.tuning.queries,
        "saved": tuned.saved,
    }
