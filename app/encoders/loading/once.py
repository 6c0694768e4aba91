"""Loads a model at its first use, once for all threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from hyblink.app.core.budget import uncharged
from hyblink.app.core.errors import EncoderUnavailableError, HyblinkError, OverBudgetError, RequestLeftError

RETRY_S = 30.0
"""A load that failed is tried again after this many seconds."""
_T = TypeVar("_T")


class Once(Generic[_T]):
    """What `load` returns, loaded at the first call. Threads that call meanwhile wait for it.

    If it fails, all calls of the next `retry_s` seconds raise the same error at once, so that no search waits for a
    model that is not there.
    """

    def __init__(self, load: Callable[[], _T], what: str, *, retry_s: float = RETRY_S) -> None:
        """`what` names the model in error messages, such as "the dense model 'mine'"."""
        self._load = load
        self._what = what
        self._retry_s = retry_s
        self._lock = threading.RLock()
        self._made: _T | None = None
        self._failure: EncoderUnavailableError | None = None
        self._failed_at = 0.0

    def __call__(self) -> _T:
        """The loaded value. Raises EncoderUnavailableError if it cannot be loaded."""
        made = self._made
        if made is not None:
            return made
        with self._lock:
            if self._made is None:
                if self._failure is not None and time.monotonic() - self._failed_at < self._retry_s:
                    raise self._failure.with_traceback(None)
                try:
                    with uncharged(), as_unavailable(f"cannot load {self._what}"):
                        self._made = self._load()
                except EncoderUnavailableError as failure:
                    self._failure, self._failed_at = failure, time.monotonic()
                    raise
                self._failure = None
            return self._made

    @property
    def value(self) -> _T | None:
        """The value if it is loaded, else None."""
        return self._made


@contextmanager
def as_unavailable(what: str) -> Iterator[None]:
    """Turn any exception of a model's files and libraries into EncoderUnavailableError, so that searches go on.

    The message begins with `what`.
    """
    try:
        yield
    except (EncoderUnavailableError, OverBudgetError, RequestLeftError):
        raise
    except HyblinkError as error:
        raise EncoderUnavailableError(f"{what}: {error}") from error
    except Exception as error:
        raise EncoderUnavailableError(f"{what}: {type(error).__name__}: {error}") from error
