"""The Jobs port without a broker: one thread in this process. What is left undone is always readable from the store."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable

from app.core.errors import HyblinkError, UnavailableError, WriterConflictError

log = logging.getLogger(__name__)


class InProcessJobs:
    """Runs `work(collection, generation)` in one background thread; a collection that is queued already waits once."""

    def __init__(self, work: Callable[[str, str, Callable[[], bool]], None], retry_s: float = 2.0) -> None:
        self._work = work
        self._retry_s = retry_s
        self._queue: list[tuple[str, str]] = []
        self._busy = False
        self._closed = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def encode(self, collection: str, generation: str, rows: Iterable[int]) -> None:
        """Queue the collection; `rows` only says that there is something: the store knows what waits."""
        if not any(True for _ in rows):
            return
        with self._changed:
            if (collection, generation) not in self._queue:
                self._queue.append((collection, generation))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="hyblink-encode", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._queue and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                collection, generation = self._queue.pop(0)
                self._busy = True
            try:
                self._work(collection, generation, lambda: self._closed)
            except (WriterConflictError, UnavailableError) as error:
                log.warning("encoding %s (%s) waits: %s", collection, generation, error)
                self._later(collection, generation)
            except HyblinkError as error:
                log.error("encoding %s (%s) stopped: %s", collection, generation, error)
            except Exception:
                # The thread must outlive a task that fails in a way nobody foresaw.
                log.exception("encoding %s (%s) failed", collection, generation)
            finally:
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()

    def _later(self, collection: str, generation: str) -> None:
        """Queue again after a while; somebody else has the store, or a part is down."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed, timeout=self._retry_s)
            if not self._closed and (collection, generation) not in self._queue:
                self._queue.append((collection, generation))

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
