"""Re-ranking: a cross-encoder reads the query with each of the best documents' passages (Nogueira & Cho 2019).

Its score is then its fused score plus ``weight · (c - min c) / std c``, c being the cross-encoder's scores
of this search. Nothing is taken away from anybody, so every re-ranked document stays above the ones that were not, and
the ledger goes on adding up.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import orjson

from hyblink.app.core.errors import HyblinkError
from hyblink.app.core.ports.encoders import CrossEncoder
from hyblink.app.core.types.arrays import ScoreArray, TokenIdf
from hyblink.app.core.types.ranking import RerankReport, RerankRequest
from hyblink.ranker.collapse import RankedDocuments


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


_KEPT_S = 300.0
"""Long enough to turn pages, and short enough that what time cut off once is not cut off for ever."""


class RecentScores:
    """What a cross-encoder said lately: so the pages of one search are cut from one order, however far its time went.

    Safe to share between threads.
    """

    def __init__(self, size: int = 256) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._scores: OrderedDict[bytes, tuple[float, ScoreArray]] = OrderedDict()

    @staticmethod
    def key(
        model: str, query: str, budget_ms: float, passages: Sequence[tuple[str, str]], idf: TokenIdf | None = None
    ) -> bytes:
        """A digest of everything that scores depend on."""
        weighed = [] if idf is None else [idf.vocabulary, idf.terms.ids.tolist(), idf.terms.weights.tolist()]
        return hashlib.blake2b(orjson.dumps([model, query, budget_ms, passages, weighed]), digest_size=16).digest()

    def get(self, key: bytes) -> ScoreArray | None:
        """The scores given last for the same question; None where they are not known any more."""
        with self._lock:
            until, scores = self._scores.get(key, (0.0, None))
            if time.monotonic() > until:
                self._scores.pop(key, None)
                return None
            self._scores.move_to_end(key)
            return scores

    def put(self, key: bytes, scores: ScoreArray) -> None:
        """Keep scores, unless there are none: then the next search tries again."""
        if not np.isfinite(scores).any():
            return
        with self._lock:
            self._scores[key] = (time.monotonic() + _KEPT_S, scores)
            while len(self._scores) > self._size:
                self._scores.popitem(last=False)


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
    """Re-rank the first `request.top` documents within the time that `request.budget_ms` gives.

    `texts` gives (title, text) of candidate columns, `idf` the collection's of the query's tokens; `recent` is what the
    caller keeps between searches. Documents for which the time was too short keep their order after the re-ranked ones;
    a cross-encoder that fails changes nothing, and the report says why.
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
