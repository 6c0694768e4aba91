"""A leg: the retriever of one or several signals, bound to a query and a snapshot."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hyblink.app.core.ports.store import Selection
from hyblink.app.core.types.arrays import IdArray, ScoreArray
from hyblink.app.core.types.ranking import Scored, Signal


@dataclass(frozen=True, slots=True)
class Leg:
    """The retriever of one signal, or of several that one request answers, bound to a query and a snapshot.

    `search` takes k, the filter (None for all) and rows proposed by other legs, and returns each signal's candidates.
    It uses those rows only if `uses_other_candidates`. `score` returns each signal's exact scores of rows. `rank`
    returns the exact rank of a row for a signal, None if there is none.
    """

    signals: tuple[Signal, ...]
    search: Callable[[int, Selection | None, IdArray], Mapping[Signal, Scored]]
    score: Callable[[IdArray], Mapping[Signal, ScoreArray]]
    rank: Callable[[Signal, int], int | None]
    uses_other_candidates: bool = False
