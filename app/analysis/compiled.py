"""Functions that are compiled when they are first called: importing numba takes longer than most commands."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any


class Compiled:
    """A function that numba compiles, without the interpreter lock, when it is first called.

    Compiled functions that it calls are compiled with it. The machine code is kept beside the source file.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        functools.update_wrapper(self, function)

    def __call__(self, *arguments: Any) -> Any:
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


def compiled(function: Callable[..., Any]) -> Compiled:
    """Decorates a function of numbers and arrays."""
    return Compiled(function)
