"""Starts a command again that a fault of the machine ended, such as a file that was cut short while it was mapped."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from types import FrameType

_FAULTS = {
    getattr(signal, name) for name in ("SIGBUS", "SIGSEGV", "SIGABRT", "SIGILL", "SIGFPE") if hasattr(signal, name)
}
_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP) if hasattr(signal, "SIGHUP") else ()
_SOON_S, _MOST_SOON = 20.0, 5
"""After so many faults that each came within `_SOON_S` seconds of the start it is given up."""


def restarted_after_faults() -> None:
    """Go on in a child process, which is started again when one of `_FAULTS` ends it. Other ends are this process's.

    Call it before threads are started. Does nothing where processes cannot be forked.
    """
    if not hasattr(os, "fork"):
        return
    soon = 0
    while True:
        began = time.monotonic()
        alive, held = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(held)
            _end_with_the_parent(alive)
            return
        os.close(alive)
        status = _waited(child)
        os.close(held)
        if not os.WIFSIGNALED(status) or os.WTERMSIG(status) not in _FAULTS:
            _end_as(status)
        soon = soon + 1 if time.monotonic() - began < _SOON_S else 0
        name = signal.Signals(os.WTERMSIG(status)).name
        again = soon < _MOST_SOON
        sys.stderr.write(f"ended by {name}; {'starting again' if again else 'given up: it happens at each start'}\n")
        sys.stderr.flush()
        if not again:
            _end_as(status)


def _waited(child: int) -> int:
    """The exit status of the child. Signals that ask for an end are passed on to it."""

    def forward(number: int, _: FrameType | None) -> None:
        try:
            os.kill(child, number)
        except ProcessLookupError:
            return

    before = {number: signal.signal(number, forward) for number in _FORWARDED}
    try:
        return os.waitpid(child, 0)[1]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end_as(status: int) -> None:
    """End this process as the child has ended."""
    if os.WIFSIGNALED(status):
        os._exit(128 + os.WTERMSIG(status))
    os._exit(os.WEXITSTATUS(status))


def _end_with_the_parent(alive: int) -> None:
    def wait() -> None:
        os.read(alive, 1)  # returns when the parent has ended, however it did
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="hyblink-parent", daemon=True).start()
