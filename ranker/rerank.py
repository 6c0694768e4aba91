"""Re-ranking: a cross-encoder reads the query with each of the best documents' passages (Nogueira & Cho 2019).

Its score is then its fused score plus ``weight · (c - min c) / std c``, c being the cross-encoder's scores
of this search. Nothing is taken away from anybody, so every re-ranked document stays above the ones that were not, and
the ledger goes on adding up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from app.core.errors import HyblinkError
from app.core.ports import CrossEncoder
from app.core.types import RerankReport, RerankRequest
from ranker.collapse import RankedDocuments


@dataclass(frozen=True, slots=True)
class CrossScore:
    """One passage's line in the ledger: raw score, (raw - min) / std, contribution to the score."""

    raw: float
    normalised: float
    contribution: float


@dataclass(frozen=True, slots=True)
class Reranked:
    """Documents in their new order, the cross-encoder's lines by candidate column, and what became of it."""

    documents: RankedDocuments
    lines: Mapping[int, CrossScore] = field(default_factory=dict)
    report: RerankReport | None = None


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
) -> Reranked:
    """Re-rank the first `request.top` documents within the time that `request.budget_ms` gives.

    `texts` gives (title, text) of candidate columns. Documents for which the time was too short keep their order after
    the re-ranked ones; a cross-encoder that fails changes nothing, and the report says why.
    """
    started = time.perf_counter()
    top = min(request.top, len(documents))
    columns = [documents.columns(at)[0] for at in range(top)]
    name, error = "", ""
    scores = np.full(top, np.nan, dtype=np.float32)
    try:
        model = encoder()
        name = model.id
        if columns:
            scores = model.score(query, texts(columns), started + request.budget_ms / 1e3)
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
