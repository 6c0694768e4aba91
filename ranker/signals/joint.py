"""The common leg of BM25 and VDR, for engines that answer both in one request."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from hyblink.app.core.ports.store import Selection
from hyblink.app.core.ports.views import JointAnswer, Snapshot
from hyblink.app.core.types.arrays import IdArray, ScoreArray, TermWeights
from hyblink.app.core.types.documents import SparseForm
from hyblink.app.core.types.ranking import EMPTY, Scored, Signal
from hyblink.ranker.leg import Leg
from hyblink.ranker.query_forms import AnalyzedQuery
from hyblink.ranker.signals.vdr import unencoded_as_nan

JOINT = (Signal.BM25, Signal.VDR)


def joint_leg(
    snapshot: Snapshot, query: AnalyzedQuery, form: SparseForm, weights: Callable[[], TermWeights]
) -> Leg | None:
    """The common retriever of BM25 and VDR, or None if the engine does not answer both in one request."""
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
        return {Signal.BM25: scores[0], Signal.VDR: unencoded_as_nan(snapshot, form, rows, scores[1])}

    def rank(signal: Signal, row: int) -> int | None:
        if signal is Signal.BM25:
            return snapshot.bm25.rank(terms, row)
        return snapshot.sparse(form).rank(weights(), row)

    return Leg((Signal.BM25, Signal.VDR), search, score, rank, view.completes)
