"""A running job: its heartbeat, its progress reports, and how it ends."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from hyblink.app.core.clock import now
from hyblink.app.core.errors import ConflictError, HyblinkError
from hyblink.app.core.ports.jobs import Jobs
from hyblink.app.core.types.documents import Reject
from hyblink.app.jobs.job import RUN_TASK, Job, JobCancelledError, TakenOverError
from hyblink.app.jobs.table import REJECTED_ROW, TRIES, JobTable

log = logging.getLogger(__name__)


class RunningJob:
    """A job that this worker runs. Every method raises TakenOverError once another worker has taken the job."""

    def __init__(self, table: JobTable, jobs: Jobs, job: Job, *, max_attempts: int, retry_s: float) -> None:
        self._table = table
        self._jobs = jobs
        self._max_attempts = max_attempts
        self._retry_s = retry_s
        self._lock = threading.RLock()
        self.job = job

    @contextmanager
    def alive(self, every_s: float) -> Iterator[None]:
        """Send a heartbeat every `every_s` seconds from a thread, for steps that take long without a report."""
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(every_s):
                try:
                    self._change()
                except TakenOverError:
                    return  # the job's next report raises the error too
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
        """Store a heartbeat with the job's stage, message and progress.

        With `progress`, the count of failed attempts is reset, unless `forget` is false. Raises JobCancelledError if
        the job's cancellation was requested.
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
        """Store rejected rows by file and line (idempotent), at most `most` for the whole job."""
        kept = self._table.records.count(REJECTED_ROW, collection=self.job.id)
        self._table.add_rejects(self.job.id, rows[: max(0, most - kept)])

    def _change(self, **changes: Any) -> None:
        with self._lock:
            self._put(changes)

    def _put(self, changes: dict[str, Any]) -> None:
        for _ in range(TRIES):
            try:
                self.job = self._table.put(replace(self.job, heartbeat=self._table.records.time(), **changes))
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
        """End the job as done, with its result."""
        self._change(state="done", owner="", ended=now(), result=result, message="", error="")

    def waits(self, stage: str, message: str) -> None:
        """Stop the job at a stage where it waits for a person's approval."""
        self._change(state="waiting", owner="", stage=stage, message=message, error="")

    def refused(self, why: str, result: Mapping[str, Any]) -> None:
        """End the job as refused: it ran to its end, but its outcome is not used."""
        self._change(state="refused", owner="", ended=now(), message=why, result=result, error="")

    def cancelled(self) -> None:
        """End the job as cancelled."""
        self._change(state="cancelled", owner="", ended=now())

    def again(self, message: str = "", delay_s: float = 0.0) -> None:
        """Queue the job again, to continue after `delay_s` seconds and after other waiting tasks."""
        if self.job.state == "cancelling":
            self.cancelled()
            return
        self._change(state="queued", owner="", message=message, not_before=self._table.records.time() + delay_s)
        if self.job.state == "queued":
            self._jobs.run(self.job.id, self.job.kind, delay_s)

    def failed(self, error: Exception, detail: str, *, may_pass: bool) -> None:
        """Handle an error: retry after a pause, or end the job as failed with a dead letter.

        It is retried if `may_pass` (the error is temporary) and attempts are left. The pauses double.
        """
        attempts = self.job.attempts + 1
        text = str(error) if isinstance(error, HyblinkError) else f"{type(error).__name__}: {error}"
        if may_pass and attempts < self._max_attempts:
            self._change(attempts=attempts, error=text)
            self.again("waits for another try", self._retry_s * 2 ** (attempts - 1))
            return
        self._change(state="failed", owner="", ended=now(), attempts=attempts, error=text)
        self._table.add_dead_letter(RUN_TASK, [self.job.id], text, detail)
