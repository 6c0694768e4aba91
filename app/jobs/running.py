"""A job while it runs: its heartbeat, its progress, how it ends."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from hyblink.app.core.clock import now
from hyblink.app.core.errors import ConflictError, HyblinkError
from hyblink.app.core.ports.work import Jobs
from hyblink.app.core.types.documents import Reject
from hyblink.app.jobs.job import RUN_TASK, Job, JobCancelledError, TakenOverError
from hyblink.app.jobs.table import REJECTED_ROW, TRIES, JobTable

log = logging.getLogger(__name__)


class RunningJob:
    """A job in the hands of the worker that runs it. Every call raises TakenOverError once another worker does."""

    def __init__(self, table: JobTable, jobs: Jobs, job: Job, *, max_attempts: int, retry_s: float) -> None:
        self._table = table
        self._jobs = jobs
        self._max_attempts = max_attempts
        self._retry_s = retry_s
        self._lock = threading.RLock()
        self.job = job

    @contextmanager
    def alive(self, every_s: float) -> Iterator[None]:
        """Within it the job is heard of, however long a step takes."""
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(every_s):
                try:
                    self._change()
                except TakenOverError:
                    return  # the job hears of it when it reports
                except HyblinkError as error:
                    log.warning("job %s could not be heard of: %s", self.job.id, error)

        thread = threading.Thread(target=beat, name="hyblink-heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def report(
        self,
        *,
        stage: str | None = None,
        message: str | None = None,
        progress: Mapping[str, Any] | None = None,
        forget: bool = True,
    ) -> None:
        """Say that it lives and how far it is; progress makes earlier failures forgotten, unless told otherwise.

        Raises JobCancelledError where the job is to stop.
        """
        changes = {
            "stage": stage,
            "message": message,
            "progress": progress,
            "attempts": None if progress is None or not forget else 0,
        }
        self._change(**{name: value for name, value in changes.items() if value is not None})
        if self.job.state == "cancelling":
            raise JobCancelledError("the job was cancelled", received=self.job.id)

    def reject(self, rows: Sequence[Reject], most: int) -> None:
        """Keep rejected rows by file and line, so that twice is once; no more than `most` of a job."""
        kept = self._table.records.count(REJECTED_ROW, collection=self.job.id)
        self._table.add_rejects(self.job.id, rows[: max(0, most - kept)])

    def _change(self, **changes: Any) -> None:
        with self._lock:
            self._put(changes)

    def _put(self, changes: dict[str, Any]) -> None:
        for _ in range(TRIES):
            try:
                self.job = self._table.put(replace(self.job, heartbeat=time.time(), **changes))
                return
            except ConflictError:
                there = self._table.get(self.job.id)
                if (there.fence, there.owner) != (self.job.fence, self.job.owner):
                    raise TakenOverError("another worker runs this job now", received=self.job.id) from None
                self.job = replace(self.job, version=there.version, state=there.state)
                if there.state == "cancelling" and changes.get("state") in {"queued", "waiting"}:
                    changes = {"state": "cancelled", "owner": "", "ended": now()}
        raise ConflictError("the job changes all the time", received=self.job.id)

    def done(self, result: Mapping[str, Any]) -> None:
        """It is finished."""
        self._change(state="done", owner="", ended=now(), result=result, message="", error="")

    def waits(self, stage: str, message: str) -> None:
        """It needs somebody's approval to go on."""
        self._change(state="waiting", owner="", stage=stage, message=message, error="")

    def refused(self, why: str, result: Mapping[str, Any]) -> None:
        """It has come to an end, and what it made is not used."""
        self._change(state="refused", owner="", ended=now(), message=why, result=result, error="")

    def cancelled(self) -> None:
        """It has stopped because it was asked to."""
        self._change(state="cancelled", owner="", ended=now())

    def again(self, message: str = "", delay_s: float = 0.0) -> None:
        """Let others take their turn, then go on."""
        if self.job.state == "cancelling":
            self.cancelled()
            return
        self._change(state="queued", owner="", message=message, not_before=time.time() + delay_s)
        if self.job.state == "queued":
            self._jobs.run(self.job.id, self.job.kind, delay_s)

    def failed(self, error: Exception, detail: str, *, may_pass: bool) -> None:
        """Try again after a pause if it may pass, so many times; otherwise the job has failed."""
        attempts = self.job.attempts + 1
        text = str(error) if isinstance(error, HyblinkError) else f"{type(error).__name__}: {error}"
        if may_pass and attempts < self._max_attempts:
            self._change(attempts=attempts, error=text)
            self.again("waits for another try", self._retry_s * 2 ** (attempts - 1))
            return
        self._change(state="failed", owner="", ended=now(), attempts=attempts, error=text)
        self._table.bury(RUN_TASK, [self.job.id], text, detail)
