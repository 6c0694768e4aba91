"""The legs: each proposes candidates from one snapshot, all at once, against one deadline.

A leg that fails or is late is reported, not fatal: the others answer. Only when none does is the search refused.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from concurrent.futures import TimeoutError as FutureTimeout

from hyblink.app.core.errors import DeadlineExceededError, HyblinkError
from hyblink.app.core.types.arrays import IdArray
from hyblink.app.core.types.ranking import EMPTY, Scored, Signal
from hyblink.app.core.types.search import LegReport
from hyblink.ranker.signals.registry import SIGNALS

log = logging.getLogger(__name__)

_WAITED_S = 0.01
"""How long a leg that completes others' proposals waits for the dense one. While a slow encoder is still at work it is
better to search, and to ask once more for what the dense leg alone has found."""

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
    return found, tuple(reports[signal] for signal in map(Signal, SIGNALS) if signal in reports)
