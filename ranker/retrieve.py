"""Candidate generation: runs all legs in parallel on one snapshot, with a common deadline.

A leg that fails or is late is reported, and the search goes on with the others. It fails only if no leg answers.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from concurrent.futures import TimeoutError as FutureTimeout

from hyblink.app.core.budget import carried, check_presence
from hyblink.app.core.errors import DeadlineExceededError, HyblinkError
from hyblink.app.core.types.arrays import IdArray
from hyblink.app.core.types.ranking import EMPTY, Scored, Signal
from hyblink.app.core.types.search import LegReport
from hyblink.ranker.signals.registry import SIGNALS

log = logging.getLogger(__name__)

_WAITED_S = 0.01
"""How long a leg that also scores the candidates of others waits for the dense leg, in seconds. With a slow encoder it
is better to search at once and to request the scores of the dense leg's candidates later."""

Others = Callable[[], IdArray]
"""Waits for the dense leg and returns its candidate rows; none if it failed, is too slow or was not requested."""


def retrieve(
    legs: Mapping[tuple[Signal, ...], Callable[[Others], Mapping[Signal, Scored]]],
    deadline_s: float,
    pool: ThreadPoolExecutor,
) -> tuple[dict[Signal, Scored], tuple[LegReport, ...]]:
    """Run all legs in parallel; returns the candidates of each signal that answered in time, and a report per signal.

    A leg that has nothing to search returns an empty mapping and gets no report. If no leg answered, raises the error
    of the first failed leg, or DeadlineExceededError if all were late.
    """
    started = time.perf_counter()
    took: dict[tuple[Signal, ...], float] = {}
    futures: dict[tuple[Signal, ...], Future[Mapping[Signal, Scored]]] = {}

    def left() -> float:
        return max(0.0, started + deadline_s - time.perf_counter())

    def others() -> IdArray:
        # Legs start in the order of submission, and the dense leg is first, so waiting for it cannot deadlock.
        dense = futures.get((Signal.DENSE,))
        if dense is None or not wait([dense], timeout=min(left(), _WAITED_S)).done or dense.exception() is not None:
            return EMPTY.rows  # its own report says why
        return dense.result().get(Signal.DENSE, EMPTY).rows

    def timed(signals: tuple[Signal, ...], run: Callable[[Others], Mapping[Signal, Scored]]) -> Mapping[Signal, Scored]:
        begun = time.perf_counter()
        try:
            return run(others)
        finally:
            took[signals] = (time.perf_counter() - begun) * 1e3

    for signals, run in legs.items():
        futures[signals] = pool.submit(carried(timed), signals, run)
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
            # Catch everything: an unexpected error in one leg must not fail the search. The report names it.
            log.exception("the %s leg failed", ", ".join(signals))
            error = f"internal_error: {type(failure).__name__}"
        for signal in signals:
            if signal not in found and not error:
                continue
            candidates = len(found[signal]) if signal in found else 0
            reports[signal] = LegReport(signal, round(took.get(signals, deadline_s * 1e3), 3), candidates, error)
    check_presence()
    if not found and any(report.error for report in reports.values()):
        if errors:
            raise errors[0]
        raise DeadlineExceededError("no leg answered in time", expected=f"an answer within {deadline_s * 1e3:g} ms")
    return found, tuple(reports[signal] for signal in map(Signal, SIGNALS) if signal in reports)
