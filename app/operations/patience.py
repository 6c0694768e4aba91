"""Waits for storage that is away for a while, such as a node that is being restarted, and then goes on."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from hyblink.app.core.errors import (
    DeadlineExceededError,
    EncoderUnavailableError,
    HyblinkError,
    SourceUnavailableError,
    UnavailableError,
)
from hyblink.app.core.progress import Progress

_R = TypeVar("_R")
_POLL_S = 2.0
log = logging.getLogger(__name__)


def patiently(run: Callable[[], _R], answers: Callable[[], object], wait_s: float, progress: Progress) -> _R:
    """Run something; if the storage does not answer, wait until it does and run it again.

    `answers` asks the storage for something cheap. It may be away `wait_s` seconds at a time; then the error of `run`
    is raised. `run` must be able to go on where it was.
    """
    while True:
        try:
            return run()
        except (EncoderUnavailableError, DeadlineExceededError, SourceUnavailableError):
            raise
        except UnavailableError as error:
            if wait_s <= 0 or not _waited(answers, wait_s, progress, error):
                raise


def _waited(answers: Callable[[], object], wait_s: float, progress: Progress, error: HyblinkError) -> bool:
    """Whether the storage answered again in time."""
    log.warning("the storage does not answer; waiting up to %g s (ingest.storage_wait_s): %s", wait_s, error)
    began = shown = time.monotonic()
    advance = progress("waiting for the storage", int(wait_s))
    while (now := time.monotonic()) - began < wait_s:
        advance(int(now - shown), "s")
        shown += int(now - shown)
        try:
            answers()
        except UnavailableError:
            time.sleep(_POLL_S)
        else:
            log.warning("the storage answers again after %.0f s; going on", time.monotonic() - began)
            return True
    return False
