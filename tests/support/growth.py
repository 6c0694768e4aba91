"""Whether the time of a function grows with its input only."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def cpu_seconds(function: Callable[[T], object], given: T) -> float:
    """CPU time of one call in this thread.

    Without the garbage collector, whose time depends on what other tests keep, and without other tests' threads.
    """
    gc.collect(0)
    gc.disable()
    try:
        began = time.thread_time()
        function(given)
        return time.thread_time() - began
    finally:
        gc.enable()


def assert_linear(function: Callable[[T], object], short: T, long: T, times: int, slack: float = 0.15) -> None:
    """Fail if `long`, which is `times` as large as `short`, takes more than 2.5 times as long as it should.

    Quadratic time would be `times` ** 2. `slack`: seconds that are granted beside. What else the machine does can
    only make a call slower, so the best of a few is looked at before it fails.
    """
    least, took = float("inf"), float("inf")
    for _ in range(4):
        least = min(least, cpu_seconds(function, short))
        took = min(took, cpu_seconds(function, long))
        if took < 2.5 * times * least + slack:
            return
    raise AssertionError(f"{times} times the input takes {took:.3f} s, once takes {least:.3f} s: {short!r:.40}")
