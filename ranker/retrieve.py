"""The legs: each proposes candidates from one snapshot, all at once, against one deadline.

A leg that fails or is late is reported, not fatal: the others answer. Only when none does is the search refused.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass

import numpy as np

from hyblink.app.core.errors import DeadlineExceededError, HyblinkError, InvalidInputError
from hyblink.app.core.ports.encoders import BagEncoder, EncodedQuery, FullEncoder
from hyblink.app.core.ports.store import Selection
from hyblink.app.core.ports.views import WAITING_COUNTED, JointAnswer, Snapshot
from hyblink.app.core.types.arrays import IdArray, ScoreArray, TermWeights, TokenIdf, VectorArray
from hyblink.app.core.types.documents import SparseForm
from hyblink.app.core.types.ranking import ALL_SIGNALS, EMPTY, Scored, Signal, VdrMode
from hyblink.app.core.types.search import LegReport
from hyblink.app.core.weights import calibrated, heaviest, product

_JOINT = (Signal.BM25, Signal.VDR)
_WAITED_S = 0.01
"""How long a leg that completes others' proposals waits for the dense one. While a slow encoder is still at work it is
better to search, and to ask once more for what the dense leg alone has found."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AnalyzedQuery:
    """A query as text and as the terms that BM25 looks for. Dense and VDR forms are made inside their legs."""

    text: str
    terms: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Leg:
    """One signal, or some that are asked together, bound to a query and a snapshot.

    `search` takes k, the selection and rows that other legs propose (looked at only where `waits` says so) and answers
    with each signal's proposals. `score` gives each signal's exact scores of rows, `rank` one signal's rank of a row.
    """

    signals: tuple[Signal, ...]
    search: Callable[[int, Selection | None, IdArray], Mapping[Signal, Scored]]
    score: Callable[[IdArray], Mapping[Signal, ScoreArray]]
    rank: Callable[[Signal, int], int | None]
    waits: bool = False


def bm25_leg(snapshot: Snapshot, query: AnalyzedQuery) -> Leg:
    """BM25 over title and text."""
    view, terms = snapshot.bm25, query.terms
    return Leg(
        (Signal.BM25,),
        lambda k, allowed, _: {Signal.BM25: view.search(terms, k, allowed)},
        lambda rows: {Signal.BM25: view.score(terms, rows)},
        lambda _, row: view.rank(terms, row),
    )


def vdr_leg(snapshot: Snapshot, form: SparseForm, weights: Callable[[], TermWeights]) -> Leg:
    """The dot product of the query's and the passages' term weights. `weights` encodes when first asked."""
    view = snapshot.sparse(form)
    return Leg(
        (Signal.VDR,),
        lambda k, allowed, _: {Signal.VDR: view.search(weights(), k, allowed)},
        lambda rows: {Signal.VDR: _waiting_as_nan(snapshot, form, rows, view.score(weights(), rows))},
        lambda _, row: view.rank(weights(), row),
    )


def _waiting_as_nan(snapshot: Snapshot, form: SparseForm, rows: IdArray, scores: ScoreArray) -> ScoreArray:
    """A passage that waits for the encoder has no such score yet; 0 would say that it does not match."""
    if form is SparseForm.BAG or not snapshot.waiting or not len(rows):
        return scores
    return np.where(snapshot.reader.encoded(rows), scores, np.float32(np.nan))


def dense_leg(snapshot: Snapshot, vector: Callable[[], VectorArray]) -> Leg | None:
    """The inner product of vectors; None where the generation has no dense index. `vector` encodes when first asked."""
    view = snapshot.dense
    if view is None:
        return None
    return Leg(
        (Signal.DENSE,),
        lambda k, allowed, _: {Signal.DENSE: view.search(vector(), k, allowed)},
        lambda rows: {Signal.DENSE: view.score(vector(), rows)},
        lambda _, row: view.rank(vector(), row),
    )


def entity_leg(annotated: Sequence[tuple[Selection, float]]) -> Leg:
    """How probably a query's entities are among those that a document was annotated with: their probabilities, summed.

    It proposes the passages of an entity that has few; of one that has many, other legs have to propose the best.
    """

    def score(rows: IdArray) -> ScoreArray:
        total = np.zeros(len(rows), dtype=np.float32)
        for selection, probability in annotated:
            total += np.float32(probability) * selection.contains(rows)
        return total

    def search(k: int, allowed: Selection | None, _: IdArray) -> Mapping[Signal, Scored]:
        few = [found for selection, _ in annotated if (found := selection.few(k)) is not None]
        rows = np.unique(np.concatenate(few)) if few else EMPTY.rows
        if allowed is not None and len(rows):
            rows = rows[allowed.contains(rows)]
        scores = score(rows)
        order = np.lexsort((rows, -scores))[:k]
        return {Signal.ENTITY: Scored(rows[order], scores[order])}

    return Leg((Signal.ENTITY,), search, lambda rows: {Signal.ENTITY: score(rows)}, lambda _, __: None)


def joint_leg(
    snapshot: Snapshot, query: AnalyzedQuery, form: SparseForm, weights: Callable[[], TermWeights]
) -> Leg | None:
    """BM25 and the sparse signal together, where the engine asks them so; None elsewhere."""
    view = snapshot.joint.get(form)
    if view is None:
        return None
    terms = query.terms
    known = JointAnswer(EMPTY, EMPTY, EMPTY.rows, np.zeros((2, 0), dtype=np.float32))

    def search(k: int, allowed: Selection | None, others: IdArray) -> Mapping[Signal, Scored]:
        nonlocal known
        known = view.search(terms, weights(), k, allowed, others)
        return {Signal.BM25: known.bm25, Signal.VDR: known.vdr}

    def score(rows: IdArray) -> Mapping[Signal, ScoreArray]:
        scores = np.zeros((2, len(rows)), dtype=np.float32)
        at = np.searchsorted(known.rows_C, rows)
        there = at < len(known.rows_C)
        there[there] = known.rows_C[at[there]] == rows[there]
        scores[:, there] = known.scores_2C[:, at[there]]
        if not there.all():
            scores[:, ~there] = view.score(terms, weights(), rows[~there])
        return {Signal.BM25: scores[0], Signal.VDR: _waiting_as_nan(snapshot, form, rows, scores[1])}

    def rank(signal: Signal, row: int) -> int | None:
        if signal is Signal.BM25:
            return snapshot.bm25.rank(terms, row)
        return snapshot.sparse(form).rank(weights(), row)

    return Leg((Signal.BM25, Signal.VDR), search, score, rank, view.completes)


_CALIBRATED = 256
"""A query's heaviest weights that are given the collection's idf; the heaviest of those are searched with."""
_ENCODED_QUERY: tuple[VdrMode, ...] = ("full", "beta")
_ENCODED_PASSAGES: tuple[VdrMode, ...] = ("full", "alpha")


def vdr_mode(wanted: VdrMode, snapshot: Snapshot, best: VdrMode) -> VdrMode:
    """The mode that answers. `auto` takes the encoder's `best` unless more than one passage in twenty waits for it.

    Raises InvalidInputError where a mode asks for an encoder that the generation has not.
    """
    if wanted == "auto":
        if snapshot.vdr is None or snapshot.dense is None or snapshot.waiting >= WAITING_COUNTED:
            return "bag"
        return best if snapshot.waiting * 20 <= snapshot.dense.vectors else "bag"
    if wanted != "bag" and snapshot.vdr is None:
        raise InvalidInputError("the generation has no VDR encoder", received=f"vdr {wanted}", expected="bag or auto")
    return wanted


class QueryForms:
    """A query's forms for one snapshot, each made once, by whoever asks first. Safe to share between threads."""

    def __init__(
        self,
        snapshot: Snapshot,
        query: AnalyzedQuery,
        bag: BagEncoder,
        encoder: FullEncoder | None,
        mode: VdrMode,
        limit: int,
    ) -> None:
        self.query = query
        self.mode = mode
        self.form = SparseForm.VDR if mode in _ENCODED_PASSAGES else SparseForm.BAG
        self._snapshot = snapshot
        self._bag = bag
        self._encoder = encoder
        self._limit = limit
        self._weights: TermWeights | None = None
        self._encoded: EncodedQuery | None = None
        self._lock = threading.RLock()
        self.encode_ms = 0.0

    def _encode(self) -> EncodedQuery:
        with self._lock:
            if self._encoded is None:
                assert self._encoder is not None
                started = time.perf_counter()
                self._encoded = self._encoder.encode_query(self.query.text)
                self.encode_ms = (time.perf_counter() - started) * 1e3
            return self._encoded

    def weights(self) -> TermWeights:
        """The query's term weights in its mode, the heaviest `limit`."""
        with self._lock:
            if self._weights is None:
                self._weights = self._made()
            return self._weights

    def _made(self) -> TermWeights:
        if self.mode in _ENCODED_QUERY:
            encoded = self._encode().weights
            assert encoded is not None
            terms = heaviest(encoded, _CALIBRATED)
        else:
            ids = np.array(self._bag.encode_query(self.query.text), dtype=np.int32)
            if self.mode == "bag":
                return self._snapshot.bag.query_weights(ids.tolist(), self._limit)
            terms = TermWeights(ids, np.ones(len(ids), dtype=np.float32))
        assert self._encoder is not None
        prior = self._encoder.prior_idf(terms.ids)
        if self.mode != "beta" and prior is None:
            return heaviest(terms, self._limit)
        idf = self._snapshot.bag.query_weights(terms.ids.tolist(), len(terms))
        # A bag of tokens says only which tokens a passage has: there the query brings all of the idf.
        weighed = product(terms, idf) if self.mode == "beta" or prior is None else calibrated(terms, idf, prior)
        return heaviest(weighed, self._limit)

    def token_idf(self) -> TokenIdf:
        """The collection's idf of the query's tokens."""
        ids = self._bag.encode_query(self.query.text)
        return TokenIdf(self._bag.id, self._snapshot.bag.query_weights(ids, len(ids)))

    def vector(self) -> VectorArray:
        """The dense vector, shape (D,)."""
        return self._encode().vector_D

    def grouped(self, signals: Sequence[Signal]) -> list[tuple[Signal, ...]]:
        """The signals as they are asked, those of one leg together; the dense one first, others may wait for it."""
        apart = [signal for signal in sorted(signals, key=lambda one: one is not Signal.DENSE) if signal not in _JOINT]
        joint = tuple(signal for signal in _JOINT if signal in signals)
        if self.form in self._snapshot.joint and len(joint) == len(_JOINT):
            return [*((signal,) for signal in apart), joint]
        return [(signal,) for signal in (*apart, *joint)]

    def leg(self, signals: tuple[Signal, ...]) -> Leg:
        """The leg of signals as `grouped` gave them."""
        leg: Leg | None
        if signals == _JOINT:
            leg = joint_leg(self._snapshot, self.query, self.form, self.weights)
        elif signals == (Signal.BM25,):
            leg = bm25_leg(self._snapshot, self.query)
        elif signals == (Signal.VDR,):
            leg = vdr_leg(self._snapshot, self.form, self.weights)
        else:
            leg = dense_leg(self._snapshot, self.vector)
        assert leg is not None, signals
        return leg


Others = Callable[[], IdArray]
"""The rows that the dense leg proposes, once it has; none where it fails, takes too long, or is not asked."""


def retrieve(
    legs: Mapping[tuple[Signal, ...], Callable[[Others], Mapping[Signal, Scored]]],
    deadline_s: float,
    pool: ThreadPoolExecutor,
) -> tuple[dict[Signal, Scored], tuple[LegReport, ...]]:
    """Run all legs at once; what answered in time, and a report on each signal.

    Raises DeadlineExceededError (or the leg's own error, where all failed alike) when no leg answered.
    """
    started = time.perf_counter()
    took: dict[tuple[Signal, ...], float] = {}
    futures: dict[tuple[Signal, ...], Future[Mapping[Signal, Scored]]] = {}

    def left() -> float:
        return max(0.0, started + deadline_s - time.perf_counter())

    def others() -> IdArray:
        # Legs begin in the order in which they were handed in, so the dense one is never behind whoever waits for it.
        dense = futures.get((Signal.DENSE,))
        if dense is None or not wait([dense], timeout=min(left(), _WAITED_S)).done or dense.exception() is not None:
            return EMPTY.rows  # its own report says why
        return dense.result()[Signal.DENSE].rows

    def timed(signals: tuple[Signal, ...], run: Callable[[Others], Mapping[Signal, Scored]]) -> Mapping[Signal, Scored]:
        begun = time.perf_counter()
        try:
            return run(others)
        finally:
            took[signals] = (time.perf_counter() - begun) * 1e3

    for signals, run in legs.items():
        futures[signals] = pool.submit(timed, signals, run)
    found: dict[Signal, Scored] = {}
    reports: dict[Signal, LegReport] = {}
    errors: list[HyblinkError] = []
    for signals, future in futures.items():
        error = ""
        try:
            found |= future.result(timeout=left())
        except FutureTimeout:
            future.cancel()
            error = f"did not answer within {deadline_s * 1e3:g} ms"
        except HyblinkError as failure:
            errors.append(failure)
            error = f"{failure.code}: {failure}"
        except Exception as failure:
            # A leg is a boundary: whatever breaks inside it, the others still answer and the report says so.
            log.exception("the %s leg failed", ", ".join(signals))
            error = f"internal_error: {type(failure).__name__}"
        for signal in signals:
            candidates = len(found[signal]) if signal in found else 0
            reports[signal] = LegReport(signal, round(took.get(signals, deadline_s * 1e3), 3), candidates, error)
    if legs and not found:
        if errors:
            raise errors[0]
        raise DeadlineExceededError("no leg answered in time", expected=f"an answer within {deadline_s * 1e3:g} ms")
    return found, tuple(reports[signal] for signal in ALL_SIGNALS if signal in reports)
