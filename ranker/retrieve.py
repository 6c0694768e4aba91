"""The legs: each proposes candidates from one snapshot, all at once, against one deadline.

A leg that fails or is late is reported, not fatal: the others answer. Only when none does is the search refused.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass

from app.core.errors import DeadlineExceededError, HyblinkError
from app.core.ports import BagEncoder, DenseEncoder, Selection, Snapshot
from app.core.types import IdArray, LegReport, ScoreArray, Scored, Signal, TermWeights, VectorArray

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AnalyzedQuery:
    """A query as text and as the terms that BM25 looks for. Dense and VDR forms are made inside their legs."""

    text: str
    terms: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Leg:
    """One signal bound to a query and a snapshot: proposes candidates, scores given rows, ranks one row."""

    signal: Signal
    search: Callable[[int, Selection | None], Scored]
    score: Callable[[IdArray], ScoreArray]
    rank: Callable[[int], int | None]


def bm25_leg(snapshot: Snapshot, query: AnalyzedQuery) -> Leg:
    """BM25 over title and text."""
    view, terms = snapshot.bm25, query.terms
    return Leg(
        Signal.BM25,
        lambda k, allowed: view.search(terms, k, allowed),
        lambda rows: view.score(terms, rows),
        lambda row: view.rank(terms, row),
    )


def vdr_leg(snapshot: Snapshot, weights: TermWeights) -> Leg:
    """The dot product of the query's and the passages' term weights."""
    view = snapshot.vdr
    return Leg(
        Signal.VDR,
        lambda k, allowed: view.search(weights, k, allowed),
        lambda rows: view.score(weights, rows),
        lambda row: view.rank(weights, row),
    )


def dense_leg(snapshot: Snapshot, vector: Callable[[], VectorArray]) -> Leg | None:
    """The inner product of vectors; None where the generation has no dense index. `vector` encodes when first asked."""
    view = snapshot.dense
    if view is None:
        return None
    return Leg(
        Signal.DENSE,
        lambda k, allowed: view.search(vector(), k, allowed),
        lambda rows: view.score(vector(), rows),
        lambda row: view.rank(vector(), row),
    )


class QueryForms:
    """A query's forms for one snapshot, each made once, by whoever asks first."""

    def __init__(
        self,
        snapshot: Snapshot,
        query: AnalyzedQuery,
        bag: BagEncoder,
        dense: DenseEncoder | None,
        limit: int,
    ) -> None:
        self.query = query
        self._snapshot = snapshot
        self._bag = bag
        self._dense = dense
        self._limit = limit
        self._weights: TermWeights | None = None
        self._vector: VectorArray | None = None
        self.encode_ms = 0.0

    @property
    def weights(self) -> TermWeights:
        """VDR weights, the heaviest `limit`."""
        if self._weights is None:
            self._weights = self._snapshot.vdr.query_weights(self._bag.encode_query(self.query.text), self._limit)
        return self._weights

    def vector(self) -> VectorArray:
        """The dense vector, shape (D,)."""
        if self._vector is None:
            assert self._dense is not None
            started = time.perf_counter()
            self._vector = self._dense.encode_query(self.query.text)
            self.encode_ms = (time.perf_counter() - started) * 1e3
        return self._vector

    def leg(self, signal: Signal) -> Leg | None:
        """The leg of a signal, or None where this generation has none."""
        if signal is Signal.BM25:
            return bm25_leg(self._snapshot, self.query)
        if signal is Signal.VDR:
            return vdr_leg(self._snapshot, self.weights)
        return dense_leg(self._snapshot, self.vector) if self._dense is not None else None


def retrieve(
    legs: Mapping[Signal, Callable[[], Scored]], deadline_s: float, pool: ThreadPoolExecutor
) -> tuple[dict[Signal, Scored], tuple[LegReport, ...]]:
    """Run all legs at once; what answered in time, and a report on each.

    Raises DeadlineExceededError (or the leg's own error, where all failed alike) when no leg answered.
    """
    started = time.perf_counter()
    took: dict[Signal, float] = {}

    def timed(signal: Signal, run: Callable[[], Scored]) -> Scored:
        begun = time.perf_counter()
        try:
            return run()
        finally:
            took[signal] = (time.perf_counter() - begun) * 1e3

    futures: dict[Signal, Future[Scored]] = {signal: pool.submit(timed, signal, run) for signal, run in legs.items()}
    found: dict[Signal, Scored] = {}
    reports: list[LegReport] = []
    errors: list[HyblinkError] = []
    for signal, future in futures.items():
        error = ""
        try:
            found[signal] = future.result(timeout=max(0.0, started + deadline_s - time.perf_counter()))
        except FutureTimeout:
            future.cancel()
            error = f"did not answer within {deadline_s * 1e3:g} ms"
        except HyblinkError as failure:
            errors.append(failure)
            error = f"{failure.code}: {failure}"
        except Exception as failure:
            # A leg is a boundary: whatever breaks inside it, the others still answer and the report says so.
            log.exception("the %s leg failed", signal.value)
            error = f"internal_error: {type(failure).__name__}"
        candidates = len(found[signal]) if signal in found else 0
        reports.append(LegReport(signal, round(took.get(signal, deadline_s * 1e3), 3), candidates, error))
    if legs and not found:
        if errors:
            raise errors[0]
        raise DeadlineExceededError("no leg answered in time", expected=f"an answer within {deadline_s * 1e3:g} ms")
    return found, tuple(reports)
