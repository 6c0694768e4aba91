"""Numeric loops that numba compiles lazily, because importing numba takes over a second.

Until a process has run 100 000 steps of such loops, the interpreter runs them; the results are the same to the bit. A
service compiles them from its start.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

INTERPRETED_STEPS = 100_000
"""Number of loop steps before numba is loaded; they take the interpreter about a tenth of a second."""


class _Interpreted:
    """Counts down the steps that the interpreter may still run. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.left = INTERPRETED_STEPS

    def takes(self, steps: int) -> bool:
        """Count `steps`; True if the interpreter may run them."""
        with self._lock:
            self.left -= steps
            return self.left > 0


_interpreted = _Interpreted()


def compile_from_now_on() -> None:
    """Load numba now and run every loop compiled. For long-lived processes."""
    import numba  # noqa: F401

    _interpreted.left = 0


class Compiled:
    """A function that numba compiles with `nogil`, so that threads run it in parallel.

    `Compiled` functions that it calls are compiled too. numba caches the machine code beside the source file.
    """

    def __init__(self, function: Callable[..., Any], steps: Callable[..., int] | None) -> None:
        self._function = function
        self._steps = steps
        functools.update_wrapper(self, function)

    def __call__(self, *arguments: Any) -> Any:
        steps = self._steps
        if steps is not None and _interpreted.left > 0 and _interpreted.takes(int(steps(*arguments))):
            return self._function(*arguments)
        return self.machine_code(*arguments)

    @functools.cached_property
    def machine_code(self) -> Callable[..., Any]:
        """The compiled function."""
        import numba

        _interpreted.left = 0  # what numba costs is paid
        names = self._function.__globals__
        for name in self._function.__code__.co_names:
            called = names.get(name)
            if isinstance(called, Compiled):
                names[name] = called.machine_code  # numba calls what it has compiled itself
        made: Callable[..., Any] = numba.njit(nogil=True, cache=True)(self._function)
        return made


def compiled(steps: Callable[..., int] | None = None) -> Callable[[Callable[..., Any]], Compiled]:
    """Decorator for functions of numbers and arrays. `steps` estimates the number of loop steps from the arguments.

    Without it the function is never interpreted.
    """
    return lambda function: Compiled(function, steps)
