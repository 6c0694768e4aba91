"""Explain why a document is not on the result page, or why it has its rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hyblink.app.core.budget import report_of_budget, within_budget
from hyblink.app.core.errors import NotFoundError
from hyblink.app.core.types.arrays import IdArray
from hyblink.app.core.types.budget import BudgetReport
from hyblink.app.core.types.ranking import (
    FIRST_RANK,
    Signal,
    SignalValue,
)
from hyblink.app.core.types.search import (
    SearchRequest,
)
from hyblink.app.search.ranking import Ranked


@dataclass(frozen=True, slots=True)
class LegStanding:
    """A document's standing in one leg: the exact score and rank of its best passage among all passages.

    `depth` is the number of candidates that the leg proposes. `proposed` says whether the document was among them.
    """

    signal: Signal
    score: float | None
    rank: int | None
    depth: int
    proposed: bool


@dataclass(frozen=True, slots=True)
class WhyNot:
    """Why a document is or is not on the page.

    `lost_at` is the stage that dropped it: `filter`, `candidates`, `page`, or `nothing` if it is shown. `rank` and
    `score` are those among all candidates; `last_shown_score` is the lowest score on the page.
    """

    doc_id: str
    generation: str
    lost_at: str
    explanation: str
    passes_filter: bool
    rank: int | None
    score: float | None
    last_shown_score: float | None
    legs: tuple[LegStanding, ...]
    signals: tuple[SignalValue, ...]
    budget: BudgetReport | None = None
    """What the request used of its budget, and what is left out for that reason. None where none is set."""


_RANKS = "the exact rank in the later legs"


def why_not(ranked: Ranked, request: SearchRequest, doc_id: str) -> WhyNot:
    """Explain at which stage a document was lost, and at which rank it stands.

    `ranked` must have been computed with `doc_id` as its extra document. Raises NotFoundError if the document does not
    exist.
    """
    reader = ranked.snapshot.reader
    rows = reader.document_rows(doc_id)
    if not len(rows):
        raise NotFoundError("no such document", received=doc_id)
    passes = ranked.allowed is None or bool(ranked.allowed.contains(rows).any())
    standings = _standings(ranked, rows, request.candidates)
    # A document that fails the filter is ranked too, to show the rank that it would have.
    documents = ranked.documents
    place = int(np.flatnonzero(documents.keys_D == reader.document_keys(rows)[0])[0])
    rank = place + FIRST_RANK
    bar = float(documents.scores_D[min(request.offset + request.k, len(documents)) - 1])
    lost, said = _lost_at(passes, standings, rank, request)
    return WhyNot(
        doc_id,
        ranked.engine.record.id,
        lost,
        said,
        passes,
        rank,
        float(documents.scores_D[place]),
        bar,
        standings,
        ranked.ledger(documents.columns(place)[0]),
        report_of_budget(),
    )


def _standings(ranked: Ranked, rows: IdArray, depth: int) -> tuple[LegStanding, ...]:
    """The standing of the best of these passages in each leg."""
    standings = []
    for signal, leg in ranked.legs.items():
        scores = leg.score(rows)[signal]
        best = None if np.isnan(scores).all() else int(np.nanargmax(scores))
        standings.append(
            LegStanding(
                signal,
                None if best is None else float(scores[best]),
                leg.rank(signal, int(rows[best])) if best is not None and within_budget(_RANKS) else None,
                depth,
                bool(np.isin(rows, ranked.proposed[signal].rows).any()),
            )
        )
    return tuple(standings)


def _lost_at(passes: bool, standings: Sequence[LegStanding], rank: int, request: SearchRequest) -> tuple[str, str]:
    """The stage that dropped the document, and an explanation in words."""
    last = request.offset + request.k
    if not passes:
        return "filter", f"the filter leaves it out; without the filter it would stand at rank {rank}"
    if not any(standing.proposed for standing in standings):
        ranks = ", ".join(f"{s.signal} rank {s.rank or 'none'}" for s in standings)
        said = f"no leg proposed it among its {request.candidates} candidates ({ranks}); "
        return "candidates", said + f"with them it would stand at rank {rank}"
    if rank > last:
        return "page", f"it stands at rank {rank}; the page ends at {last}"
    if rank <= request.offset:
        return "page", f"it stands at rank {rank}; the page begins at {request.offset + FIRST_RANK}"
    return "nothing", f"it is shown, at rank {rank}"
