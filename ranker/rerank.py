"""Re-ranking: a cross-encoder scores the query with the best passage of each top document (Nogueira & Cho 2019).

The score of a document becomes its fused score plus ``weight · (c - min c) / std c``, where c are the cross-encoder's
scores of this search. The added term is never negative, and re-ranked documents stay above all others.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import orjson

from hyblink.app.core.errors import HyblinkError
from hyblink.app.core.ports.encoders import CrossEncoder
from hyblink.app.core.recent import Recent
from hyblink.app.core.types.arrays import ScoreArray, TokenIdf
from hyblink.app.core.types.ranking import RerankReport, RerankRequest
from hyblink.ranker.collapse import RankedDocuments


@dataclass(frozen=True, slots=True)
class CrossScore:
    """The cross-encoder's line in a passage's score breakdown: raw score, (raw - min) / std, contribution."""

    raw: float
    normalised: float
    contribution: float


@dataclass(frozen=True, slots=True)
class Reranked:
    """The re-ranked documents, the cross-encoder's scores by candidate column, and a report."""

    documents: RankedDocuments
    lines: Mapping[int, CrossScore] = field(default_factory=dict)
    report: RerankReport | None = None


_KEPT_S = 300.0
"""Cache lifetime in seconds: long enough for paging, short enough that a time-out is retried soon."""


class RecentScores:
    """An LRU cache of cross-encoder scores, so that all pages of a search come from the same order. Thread-safe.

    Without it, the time limit could cut off different documents for each page.
    """

    def __init__(self, size: int = 256) -> None:
        self._scores: Recent[tuple[float, ScoreArray]] = Recent(size)

    @staticmethod
    def key(
        model: str, query: str, budget_ms: float, passages: Sequence[tuple[str, str]], idf: TokenIdf | None = None
    ) -> bytes:
        """The cache key: a hash of everything that the scores depend on."""
        weighed = [] if idf is None else [idf.vocabulary, idf.terms.ids.tolist(), idf.terms.weights.tolist()]
        return hashlib.blake2b(orjson.dumps([model, query, budget_ms, passages, weighed]), digest_size=16).digest()

    def get(self, key: bytes) -> ScoreArray | None:
        """The cached scores of a key, or None if unknown or expired."""
        until, scores = self._scores.get(key) or (0.0, None)
        return None if time.monotonic() > until else scores

    def put(self, key: bytes, scores: ScoreArray) -> None:
        """Cache scores. If none is finite they are not cached, and the next search tries again."""
        if not np.isfinite(scores).any():
            return
        self._scores.put(key, (time.monotonic() + _KEPT_S, scores))


def normalised(raw: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(raw - min) / standard deviation, over the documents of one search."""
    values: npt.NDArray[np.float64] = (raw - raw.min()) / (raw.std() or 1.0)
    return values


def rerank(
    query: str,
    documents: RankedDocuments,
    request: RerankRequest,
    weight: float,
    encoder: Callable[[], CrossEncoder],
    texts: Callable[[Sequence[int]], list[tuple[str, str]]],
    recent: RecentScores,
    idf: Callable[[], TokenIdf | None] = lambda: None,
) -> Reranked:
    """Re-rank the first `request.top` documents within `request.budget_ms` milliseconds.

    `texts` returns (title, text) of candidate columns and `idf` the collection's idf of the query's tokens. `recent` is
    the score cache shared by searches. Documents not scored in time keep their order after the re-ranked ones. If the
    cross-encoder fails, the order is unchanged and the report names the error.
    """
    top = min(request.top, len(documents))
    columns = [documents.columns(at)[0] for at in range(top)]
    name, error = "", ""
    started = time.perf_counter()
    scores = np.full(top, np.nan, dtype=np.float32)
    try:
        model = encoder()
        name = model.id
        model.load()
        started = time.perf_counter()  # loading does not use up the budget
        if columns:
            passages = texts(columns)
            own = idf()
            key = recent.key(name, query, request.budget_ms, passages, own)
            known = recent.get(key)
            if known is None:
                known = model.score(query, passages, started + request.budget_ms / 1e3, own)
                recent.put(key, known)
            scores = known
    except HyblinkError as failure:
        error = f"{failure.code}: {failure}"
    done = np.flatnonzero(np.isfinite(scores))
    took_ms = (time.perf_counter() - started) * 1e3
    report = RerankReport(name, top, len(done), top - len(done), round(took_ms, 3), error)
    if not len(done):
        return Reranked(documents, {}, report)
    raw = scores[done].astype(np.float64)
    values = normalised(raw)
    lines = {
        columns[at]: CrossScore(float(scores[at]), float(value), float(weight * value))
        for at, value in zip(done.tolist(), values, strict=True)
    }
    added = np.zeros(len(documents))
    added[done] = weight * values
    rest = np.setdiff1d(np.arange(len(documents)), done)
    order = np.concatenate([done[np.argsort(-(documents.scores_D + added)[done], kind="stable")], rest])
    return Reranked(documents.reordered(order, documents.scores_D + added), lines, report)
