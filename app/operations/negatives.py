"""Mine negatives for training rows, and audit them for false negatives."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hyblink.app.analysis.analyzer import Analyzer
from hyblink.app.application import App
from hyblink.app.core.errors import InvalidInputError
from hyblink.app.core.progress import Progress, silent
from hyblink.app.encoders.reranker import Reranker
from hyblink.app.evaluation.systems import systems_from
from hyblink.app.operations.encoding import encode_queries_ahead
from hyblink.training.data.rows import TrainingRow, read_corpus, read_rows
from hyblink.training.negatives.mining import (
    Audit,
    Judge,
    Mining,
    OfflineBm25,
    RandomPool,
    Source,
    audit,
    filtered,
    mine,
)
from hyblink.training.negatives.sources import CollectionSource


def mine_negatives(
    app: App,
    data: Path,
    mining: Mining,
    *,
    split: str = "train",
    collection: str | None = None,
    source: str = "hybrid",
    scores: bool = False,
    judge: str | None = None,
    judge_margin: float = 0.0,
    limit: int | None = None,
    progress: Progress = silent,
) -> list[TrainingRow]:
    """Return the training rows with negatives mined from a collection, or from the rows' own corpus.

    `source` is a system of the collection (such as `hybrid`); without a collection it is `bm25` or `random`. `judge`
    names a cross-encoder; it drops negatives that it scores above the lowest positive minus `judge_margin`. `limit` is
    the largest number of rows, sampled with a fixed seed. Raises NotFoundError, InvalidInputError.
    """
    rows = read_rows(data, split)
    if limit and limit < len(rows):
        rows = [rows[at] for at in sorted(random.Random(0).sample(range(len(rows)), limit))]
    rows = [replace(row, negatives=()) for row in rows]
    found = _source(app, data, collection, source, [row.query for row in rows])
    mined = mine(rows, found, mining, scores=scores, progress=progress("rows", len(rows)))
    return filtered(mined, judge_of(app, judge), judge_margin) if judge is not None else mined


def _source(app: App, data: Path, collection: str | None, source: str, queries: Sequence[str]) -> Source:
    if collection is not None and source != "random":
        signals = systems_from([source])[source].signals
        encode_queries_ahead(app, collection, list(queries))
        return CollectionSource(app.search, collection, signals, source)
    if source not in {"bm25", "random"}:
        raise InvalidInputError(
            "this source needs a collection", received=source, expected="--collection NAME, or bm25 or random"
        )
    corpus = list(read_corpus(data).values())
    return RandomPool(corpus) if source == "random" else OfflineBm25(corpus, Analyzer("english").terms)


def judge_of(app: App, model: str) -> Judge:
    """Load a cross-encoder; return a function that scores texts against a query.

    `model` is a model name, or `default` for the re-ranker of the settings. Raises EncoderUnavailableError.
    """
    encoder = app.encoders.cross() if model == "default" else Reranker(model, app.settings.encode)
    encoder.load()

    def judge(query: str, texts: Sequence[str]) -> list[float]:
        found: list[float] = encoder.score(query, [("", text) for text in texts], math.inf).tolist()
        return found

    return judge


def audit_negatives(app: App, data: Path, judge: str = "default", sample: int = 200) -> Audit:
    """Estimate the share of false negatives: negatives that a cross-encoder scores as relevant, on a sample of rows."""
    return audit(read_rows(data), judge_of(app, judge), sample=sample)
