"""Create, list, cancel, resume and take jobs, each of which has a persistent record.

A job's record is authoritative; tasks carry only its id. A worker that takes a job increments its `fence`. A worker
that was wrongly considered dead sees a different fence at its next report, and stops. A task that is delivered twice
finds the job running, and does nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

from hyblink.app.core.clock import now, oldest_id, sortable_id
from hyblink.app.core.errors import ConflictError, InvalidInputError, NotFoundError, UnavailableError
from hyblink.app.core.ports.jobs import Jobs, Records
from hyblink.app.core.process import has_died, new_owner
from hyblink.app.jobs.job import ALONE, ENDED, OPEN, STATES, DeadLetter, Job, State
from hyblink.app.jobs.running import RunningJob
from hyblink.app.jobs.single_flight import single_flight
from hyblink.app.jobs.table import DEAD_LETTER, JOB, PAGE, REJECTED_ROW, TRIES, JobTable, job_of


class JobRecords:
    """Creates jobs, hands them to workers, and queues lost ones again.

    A job without a heartbeat for `silent_s` seconds counts as abandoned. A job is tried `max_attempts` times, with
    pauses that start at `retry_s` seconds and double.
    """

    def __init__(self, records: Records, jobs: Jobs, *, silent_s: float, max_attempts: int, retry_s: float) -> None:
        self._records = records
        self._table = JobTable(records)
        self._jobs = jobs
        self._silent_s = silent_s
        self._max_attempts = max_attempts
        self._retry_s = retry_s
        self._owner = new_owner()

    @contextmanager
    def _only_one(self, kind: str, collection: str) -> Iterator[None]:
        """Ensure, while held, that a collection has no open job of this kind and that none can be created."""
        with single_flight(self._records, f"create/{kind}/{collection}", "a job of this kind is being made"):
            for item in self.list(states=OPEN, collection=collection, limit=PAGE):
                if item.kind == kind:
                    raise ConflictError(
                        f"a {kind} job of this collection is {item.state}", received=item.id, expected="one at a time"
                    )
            yield

    def create(self, kind: str, collection: str, params: Mapping[str, Any], by: str = "") -> Job:
        """Create a job's record and queue the job.

        Raises ConflictError if the collection can have one open job of this kind and has one.
        """
        with self._only_one(kind, collection) if kind in ALONE else nullcontext():
            job = Job(sortable_id("j"), kind, collection, params, by, now(), heartbeat=self._records.time())
            job = self._table.put(job)
            self._jobs.run(job.id, job.kind)
            return job

    def get(self, job_id: str) -> Job:
        """Return a job. Raises NotFoundError."""
        return self._table.get(job_id)

    def exists(self, job_id: str) -> bool:
        """Return whether a job exists."""
        return self._records.get(JOB, job_id) is not None

    def list(
        self,
        *,
        states: Sequence[str] = (),
        collection: str | None = None,
        before: str | None = None,
        limit: int = 50,
    ) -> list[Job]:
        """Return jobs, newest first, of some states (empty: all) and of a collection (None: all).

        `before` is an id: only older jobs are returned. Raises InvalidInputError for an unknown state.
        """
        unknown = sorted(set(states) - set(STATES))
        if unknown:
            raise InvalidInputError("unknown state", received=unknown, expected=", ".join(STATES))
        found = self._records.list(JOB, states=states, collection=collection, before=before, limit=limit)
        return [job_of(result) for result in found]

    def count(self, state: State) -> int:
        """Return the number of jobs in a state."""
        return self._records.count(JOB, states=[state])

    def count_dead(self) -> int:
        """Return the number of dead letters."""
        return self._records.count(DEAD_LETTER)

    def cancel(self, job_id: str) -> Job:
        """Cancel a job: at once if it does not run, else at its next progress report.

        Raises NotFoundError, and ConflictError if the job has ended.
        """
        for _ in range(TRIES):
            job = self.get(job_id)
            if job.state in ENDED:
                raise ConflictError("the job has ended", received=job.state, expected="a queued or running job")
            if job.state == "cancelling":
                return job
            state: State = "cancelled" if job.state in {"queued", "waiting"} else "cancelling"
            ended = now() if state == "cancelled" else ""
            try:
                return self._table.put(replace(job, state=state, ended=ended, message="cancelled by request"))
            except ConflictError:
                continue
        raise ConflictError("the job changes all the time", received=job_id)

    def resume(self, job_id: str) -> Job:
        """Queue a cancelled or failed job again, from where it stopped. Raises ConflictError for other states."""
        job = self.get(job_id)
        if job.state not in {"cancelled", "failed"}:
            raise ConflictError("the job cannot be resumed", received=job.state, expected="cancelled or failed")
        with self._only_one(job.kind, job.collection) if job.kind in ALONE else nullcontext():
            return self._queue(replace(job, attempts=0, error="", message="", ended=""))

    def approve(self, job_id: str, by: str = "") -> Job:
        """Approve a job that waits for approval, and queue it again. Raises ConflictError for other states."""
        job = self.get(job_id)
        if job.state != "waiting":
            raise ConflictError("the job does not wait for approval", received=job.state, expected="waiting")
        told = {**job.progress, "approved_by": by, "approved_at": now()}
        return self._queue(replace(job, stage="switch", message="approved", progress=told))

    def take(self, job_id: str) -> RunningJob | None:
        """Take a job to run it, from its start or where it stopped.

        Returns None if there is nothing to do, if another live worker runs it, or if it has used all its attempts.
        """
        for _ in range(TRIES):
            found = self._records.get(JOB, job_id)
            if found is None:
                return None
            job = job_of(found)
            if job.state == "cancelling" and not self._alive(job):
                self._cancelled(job)
                return None
            if job.state in {*ENDED, "cancelling", "waiting"} or (job.state == "running" and self._alive(job)):
                return None
            taken = replace(
                job,
                state="running",
                fence=job.fence + 1,
                owner=self._owner,
                heartbeat=self._records.time(),
                started=job.started or now(),
                # A worker that died while running the job counts as a failed attempt.
                attempts=job.attempts + (job.state == "running"),
            )
            try:
                running = RunningJob(
                    self._table,
                    self._jobs,
                    self._table.put(taken),
                    max_attempts=self._max_attempts,
                    retry_s=self._retry_s,
                )
            except ConflictError:
                continue
            if taken.attempts >= self._max_attempts:
                running.failed(UnavailableError("every worker that ran it died"), "", may_pass=False)
                return None
            return running
        return None

    def _alive(self, job: Job) -> bool:
        return job.heartbeat > self._records.time() - self._silent_s and not has_died(job.owner)

    def sweep(self) -> int:
        """Queue jobs again whose task was lost or whose worker died; return how many jobs were changed.

        A job that was being cancelled when its worker died becomes cancelled.
        """
        count = 0
        for job in self.list(states=("queued", "running", "cancelling"), limit=PAGE):
            try:
                if job.state == "queued":
                    # Queued for long without being taken: the task is lost or waits. A second task does no harm.
                    if job.heartbeat > self._records.time() - self._silent_s or job.not_before > self._records.time():
                        continue
                    self._queue(job)
                elif self._alive(job):
                    continue
                elif job.state == "cancelling":
                    self._cancelled(job)
                else:
                    self._jobs.run(job.id, job.kind)
                count += 1
            except ConflictError:
                continue
        return count

    def tidy(self, keep_days: float) -> int:
        """Delete jobs that ended, and dead letters, created more than `keep_days` ago; return how many records."""
        ended = self._records.list(JOB, states=ENDED, before=oldest_id("j", keep_days), limit=PAGE)
        for item in ended:
            while rejects := self._records.list(REJECTED_ROW, collection=item.id, limit=PAGE):
                self._records.remove(REJECTED_ROW, [row.id for row in rejects])
        dead = self._records.list(DEAD_LETTER, before=oldest_id("d", keep_days), limit=PAGE)
        return self._records.remove(JOB, [item.id for item in ended]) + self._records.remove(
            DEAD_LETTER, [item.id for item in dead]
        )

    def rejects(self, job_id: str, limit: int = 100) -> Sequence[Mapping[str, Any]]:
        """Return the rejected rows of an ingestion job, by descending file and line. Raises NotFoundError."""
        self.get(job_id)
        return [item.body for item in self._records.list(REJECTED_ROW, collection=job_id, limit=limit)]

    def add_dead_letter(self, task: str, args: Sequence[str], error: str, detail: str) -> str:
        """Store a task that failed for good as a dead letter; return the letter's id."""
        return self._table.add_dead_letter(task, args, error, detail)

    def dead_letters(self, before: str | None = None, limit: int = 100) -> Sequence[DeadLetter]:
        """Return dead letters, newest first. `before` is an id: only older ones are returned."""
        return [
            DeadLetter(item.id, **item.body) for item in self._records.list(DEAD_LETTER, before=before, limit=limit)
        ]

    def take_dead_letter(self, letter: str) -> DeadLetter:
        """Delete a dead letter and return it, so that its task can be queued again. Raises NotFoundError."""
        found = self._records.get(DEAD_LETTER, letter)
        if found is None or not self._records.remove(DEAD_LETTER, [letter]):
            raise NotFoundError("no such dead letter", received=letter)
        return DeadLetter(found.id, **found.body)

    def _queue(self, job: Job) -> Job:
        queued = self._table.put(replace(job, state="queued", owner="", heartbeat=self._records.time(), not_before=0.0))
        self._jobs.run(job.id, job.kind)
        return queued

    def _cancelled(self, job: Job) -> Job:
        return self._table.put(replace(job, state="cancelled", owner="", ended=now()))
