"""A leg: one signal, or some that are asked together, bound to a query and a snapshot."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hyblink.app.core.ports.store import Selection
from hyblink.app.core.types.arrays import IdArray, ScoreArray
from hyblink.app.core.types.ranking import Scored, Signal


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
