"""The Jobs port without a broker: one thread in this process. What is left undone is always readable from the store."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable

from app.core.errors import HyblinkError, UnavailableError, WriterConflictError

log = logging.getLogger(__name__)


Work = Callable[[str, str, Callable[[], bool]], None]
"""Does what waits in a generation of a collection, until it is told to stop."""


class InProcessJobs:
    """Runs its work in one background thread; a collection that is queued already waits once.

    Annotating goes before encoding: it is a matter of moments.
    """

    def __init__(self, encode: Work, annotate: Work, retry_s: float = 2.0) -> None:
        self._work = {"encoding": encode, "annotating": annotate}
        self._retry_s = retry_s
        self._queue: list[tuple[str, str, str]] = []
        self._busy = False
        self._closed = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def encode(self, collection: str, generation: str, rows: Iterable[int]) -> None:
        """Queue the collection; `rows` only says that there is something: the store knows what waits."""
        if any(True for _ in rows):
            self._put(("encoding", collection, generation))

    def annotate(self, collection: str) -> None:
        """Queue the collection's documents; the store knows which wait."""
        self._put(("annotating", collection, ""))

    def _put(self, task: tuple[str, str, str]) -> None:
        with self._changed:
            if task not in self._queue:
                self._queue.append(task)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="hyblink-jobs", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def _next(self) -> tuple[str, str, str]:
        at = next((at for at, task in enumerate(self._queue) if task[0] == "annotating"), 0)
        return self._queue.pop(at)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._queue and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                task = self._next()
                self._busy = True
            what, collection, generation = task
            try:
                self._work[what](collection, generation, lambda: self._closed)
            except (WriterConflictError, UnavailableError) as error:
                log.warning("%s %s %s waits: %s", what, collection, generation, error)
                self._later(task)
            except HyblinkError as error:
                log.error("%s %s %s stopped: %s", what, collection, generation, error)
            except Exception:
                # The thread must outlive a task that fails in a way nobody foresaw.
                log.exception("%s %s %s failed", what, collection, generation)
            finally:
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()

    def _later(self, task: tuple[str, str, str]) -> None:
        """Queue again after a while; somebody else has the store, or a part is down."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed, timeout=self._retry_s)
            if not self._closed and task not in self._queue:
                self._queue.append(task)

    def wait(self, timeout_s: float | None = None) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: not self._queue and not self._busy, timeout_s)

    def close(self) -> None:
        """Stop after the block in hand."""
        with self._changed:
            self._closed = True
            self._queue.clear()
            self._changed.notify_all()
        if self._thread:
            self._thread.join(timeout=60)
