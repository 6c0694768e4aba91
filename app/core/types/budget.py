"""The report on what a request cost."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BudgetReport:
    """What a request was allowed and what it used, in CPU seconds, and what the answer lacks for that reason."""

    cpu_s: float
    used_s: float
    left_out: tuple[str, ...] = ()
