"""Loops over numbers that numba compiles, once there is enough to do: importing numba takes over a second.

Until a process has done 100 000 steps of such loops, they run as the Python that they are written in; the results
are the same to the bit. A service compiles from its start.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

INTERPRETED_STEPS = 100_000
"""Steps that a process runs before it loads numba: about as many as take a tenth of a second in the interpreter."""


class _Interpreted:
    """Counts down the steps that are left to the interpreter. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.left = INTERPRETED_STEPS

    def takes(self, steps: int) -> bool:
        """Whether so many more steps are still for the interpreter; they are then counted."""
        with self._lock:
            if steps > self.left:
                self.left = 0
            else:
                self.left -= steps
            return self.left > 0


_interpreted = _Interpreted()


def compile_from_now_on() -> None:
    """Load numba and run nothing more in the interpreter: for processes that stay."""
    import numba  # noqa: F401

    _interpreted.left = 0


class Compiled:
    """A function that numba compiles, without the interpreter lock.

    Compiled functions that it calls are compiled with it. The machine code is kept beside the source file.
    """

    def __init__(self, function: Callable[..., Any], steps: Callable[..., int]) -> None:
        self._function = function
        self._steps = steps
        functools.update_wrapper(self, function)

    def __call__(self, *arguments: Any) -> Any:
        if _interpreted.left and _interpreted.takes(int(self._steps(*arguments))):
            return self._function(*arguments)
        return self.machine_code(*arguments)

    @functools.cached_property
    def machine_code(self) -> Callable[..., Any]:
        """What numba made of it."""
        import numba

        names = self._function.__globals__
        for name in self._function.__code__.co_names:
            called = names.get(name)
            if isinstance(called, Compiled):
                names[name] = called.machine_code  # numba calls what it has compiled itself
        made: Callable[..., Any] = numba.njit(nogil=True, cache=True)(self._function)
        return made


def compiled(steps: Callable[..., int]) -> Callable[[Callable[..., Any]], Compiled]:
    """Decorates a function of numbers and arrays; `steps` tells from its arguments how often its loops run, roughly."""
    return lambda function: Compiled(function, steps)
