"""The `Jobs` port without a broker: threads of this process. The store always records which work is left."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Protocol

from hyblink.app.core.errors import HyblinkError, StorageFullError, UnavailableError, WriterConflictError

log = logging.getLogger(__name__)

TRY_AGAIN = (WriterConflictError, UnavailableError, StorageFullError)
"""Temporary errors, after which a task is retried: another writer, a service that is down, a full disk."""


class Work(Protocol):
    """The functions that tasks call. Each returns early once `stop()` is true."""

    def encode_waiting(self, collection: str, generation: str, stop: Callable[[], bool]) -> None: ...

    def annotate_waiting(self, collection: str, stop: Callable[[], bool]) -> None: ...

    def run_job(self, job_id: str, stop: Callable[[], bool]) -> None: ...


Task = tuple[str, tuple[str, ...]]


class _Lane:
    """A queue with one thread. A task that is already queued is not queued twice; tasks named `first` go first."""

    def __init__(self, name: str, do: Callable[[Task, Callable[[], bool]], None], first: str) -> None:
        self._do = do
        self._first = first
        self.retry_s = 2.0
        self._queue: list[Task] = []
        self._busy = self._closed = False
        self._changed = threading.Condition()
        self._name = name
        self._thread: threading.Thread | None = None

    def __len__(self) -> int:
        with self._changed:
            return len(self._queue)

    def put(self, task: Task) -> None:
        with self._changed:
            if task not in self._queue and not self._closed:
                self._queue.append(task)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def put_later(self, task: Task, delay_s: float) -> None:
        timer = threading.Timer(delay_s, self.put, [task])
        timer.daemon = True
        timer.start()

    def _next(self) -> Task:
        at = next((at for at, task in enumerate(self._queue) if task[0] == self._first), 0)
        return self._queue.pop(at)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closed)
                if self._closed:
                    return
                task = self._next()
                self._busy = True
            try:
                self._do(task, lambda: self._closed)
            except TRY_AGAIN as error:
                log.warning("%s %s waits: %s", *task, error)
                self._later(task)
            except HyblinkError as error:
                log.error("%s %s stopped: %s", *task, error)
            except Exception:
                # An unexpected error of a task must not end the thread.
                log.exception("%s %s failed", *task)
            finally:
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()

    def _later(self, task: Task) -> None:
        """Queue a task again after `retry_s`."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed, timeout=self.retry_s)
            if not self._closed and task not in self._queue:
                self._queue.append(task)

    def wait(self, timeout_s: float | None = None) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: not self._queue and not self._busy, timeout_s)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._queue.clear()
            self._changed.notify_all()
        if self._thread:
            self._thread.join(timeout=60)


class InProcessJobs:
    """The `Jobs` port with two threads: one for tasks that run models, one for jobs with records.

    The first runs annotation before encoding, because it takes less time.
    """

    def __init__(self, work: Callable[[], Work]) -> None:
        self._work = work
        self._models = _Lane("hyblink-models", self._do, "annotate")
        self._jobs = _Lane("hyblink-jobs", self._do, "run")

    def _do(self, task: Task, stop: Callable[[], bool]) -> None:
        work = self._work()
        match task:
            case ("encode", (collection, generation)):
                work.encode_waiting(collection, generation, stop)
            case ("annotate", (collection,)):
                work.annotate_waiting(collection, stop)
            case ("run", (job_id,)):
                work.run_job(job_id, stop)

    def encode(self, collection: str, generation: str, rows: Iterable[int]) -> None:
        """Queue the encoding of a generation, unless `rows` is empty. The store knows which passages to encode."""
        if any(True for _ in rows):
            self._models.put(("encode", (collection, generation)))

    def annotate(self, collection: str) -> None:
        """Queue the annotation of a collection. Which documents to annotate is read from the store."""
        self._models.put(("annotate", (collection,)))

    def run(self, job_id: str, kind: str, delay_s: float = 0.0) -> None:  # noqa: ARG002
        """Queue a job by its id, after `delay_s` seconds. The rest is read from its record."""
        if delay_s:
            self._jobs.put_later(("run", (job_id,)), delay_s)
        else:
            self._jobs.put(("run", (job_id,)))

    def lengths(self) -> dict[str, int]:
        """Return the number of waiting tasks by thread."""
        return {"models": len(self._models), "jobs": len(self._jobs)}

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until all queued tasks are done. Returns False on timeout."""
        return self._jobs.wait(timeout_s) and self._models.wait(timeout_s)  # jobs first: they queue encoding

    def close(self) -> None:
        """Stop both threads after their current block; queued tasks are dropped."""
        self._jobs.close()
        self._models.close()
