"""Jobs that people see: what was asked for, how far it is, who is at it, how it ended.

A job's record is the truth about it; tasks carry its id only. Whoever runs a job raises its `fence`; a worker that was
taken for dead finds another number there when it reports, and stops. A task delivered twice finds the job running.
"""

from __future__ import annotations

import datetime as dt
import logging
import secrets
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, cast, get_args

from app.core.errors import ConflictError, HyblinkError, InvalidInputError, NotFoundError, UnavailableError
from app.core.ports import Jobs, Record, Records
from app.indexes.catalog import now
from app.indexes.owner import has_died, new_owner
from indexer.pipeline import Reject
from indexer.single_flight import single_flight

log = logging.getLogger(__name__)

State = Literal["queued", "running", "waiting", "cancelling", "cancelled", "done", "refused", "failed"]
STATES: tuple[State, ...] = get_args(State)
ENDED: tuple[State, ...] = ("cancelled", "done", "refused", "failed")
OPEN: tuple[State, ...] = ("queued", "running", "waiting", "cancelling")
ALONE = ("retrain",)
"""Kinds of which a collection has one open job at a time."""
WORKER = "worker"
"""The kind of record that a worker keeps of itself."""
RUN_TASK, RUN_LONG_TASK = "hyblink.run", "hyblink.run_long"
_KIND, _REJECT, _DEAD = "job", "reject", "dead"
_PAGE = 1000
_TRIES = 20


class TakenOverError(ConflictError):
    """Another worker runs this job now."""

    code = "taken_over"


class JobCancelledError(ConflictError):
    """Somebody has asked the job to stop."""

    code = "cancelled"


@dataclass(frozen=True, slots=True)
class Job:
    """A job as everybody may see it. Times are UTC; `heartbeat` is in seconds since 1970."""

    id: str
    kind: str
    collection: str
    params: Mapping[str, Any]
    by: str
    created: str
    state: State = "queued"
    stage: str = ""
    message: str = ""
    progress: Mapping[str, Any] = field(default_factory=dict)
    result: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""
    attempts: int = 0
    started: str = ""
    ended: str = ""
    fence: int = 0
    owner: str = ""
    heartbeat: float = 0.0
    not_before: float = 0.0
    version: int = 0


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A task that failed for good, or as often as it is tried."""

    id: str
    task: str
    args: Sequence[str]
    error: str
    detail: str
    at: str


def sortable_id(prefix: str) -> str:
    """An id that sorts by time: the prefix, the moment in UTC, and a random end."""
    return f"{prefix}{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%S%f}-{secrets.token_hex(3)}"


def oldest_id(prefix: str, keep_days: float) -> str:
    """What ids of `sortable_id` come after that are at most so old."""
    return f"{prefix}{dt.datetime.now(dt.UTC) - dt.timedelta(days=keep_days):%Y%m%dT%H%M%S}"


class _Table:
    """Jobs, their rejected rows and dead letters as records."""

    def __init__(self, records: Records) -> None:
        self.records = records

    def get(self, job_id: str) -> Job:
        found = self.records.get(_KIND, job_id)
        if found is None:
            raise NotFoundError("no such job", received=job_id)
        return _job(found)

    def put(self, job: Job) -> Job:
        body = asdict(job)
        for name in ("id", "state", "collection", "version"):
            del body[name]
        stored = self.records.put(Record(_KIND, job.id, body, job.state, job.collection, job.version))
        return replace(job, version=stored.version)

    def add_rejects(self, job_id: str, rows: Sequence[Reject]) -> None:
        self.records.add(
            [
                Record(_REJECT, f"{job_id}/{one.file}:{one.line:09d}"[:512], asdict(one), collection=job_id)
                for one in rows
            ]
        )

    def bury(self, task: str, args: Sequence[str], error: str, detail: str) -> str:
        letter = sortable_id("d")
        body = {"task": task, "args": list(args), "error": error[:2000], "detail": detail[-8000:], "at": now()}
        self.records.put(Record(_DEAD, letter, body))
        log.error("%s %s is a dead letter now (%s): %s", task, args, letter, error)
        return letter


class JobRecords:
    """Makes jobs, lets workers take them, and queues again what nobody is at."""

    def __init__(self, records: Records, jobs: Jobs, *, silent_s: float, max_attempts: int, retry_s: float) -> None:
        self._records = records
        self._table = _Table(records)
        self._jobs = jobs
        self._silent_s = silent_s
        self._max_attempts = max_attempts
        self._retry_s = retry_s
        self._owner = new_owner()

    @contextmanager
    def _only_one(self, kind: str, collection: str) -> Iterator[None]:
        """Within it no other job of the kind is open, and none can be made."""
        with single_flight(self._records, f"create/{kind}/{collection}", "a job of this kind is being made"):
            for one in self.list(states=OPEN, collection=collection, limit=_PAGE):
                if one.kind == kind:
                    raise ConflictError(
                        f"a {kind} job of this collection is {one.state}", received=one.id, expected="one at a time"
                    )
            yield

    def create(self, kind: str, collection: str, params: Mapping[str, Any], by: str = "") -> Job:
        """Record a job and queue it. Raises ConflictError where its kind is one at a time, and there is one."""
        with self._only_one(kind, collection) if kind in ALONE else nullcontext():
            job = Job(sortable_id("j"), kind, collection, params, by, now(), heartbeat=time.time())
            job = self._table.put(job)
            self._jobs.run(job.id, job.kind)
            return job

    def get(self, job_id: str) -> Job:
        """A job as it is now. Raises NotFoundError."""
        return self._table.get(job_id)

    def exists(self, job_id: str) -> bool:
        """Whether there is a record of a job."""
        return self._records.get(_KIND, job_id) is not None

    def list(
        self,
        *,
        states: Sequence[str] = (),
        collection: str | None = None,
        before: str | None = None,
        limit: int = 50,
    ) -> list[Job]:
        """Jobs, the newest first. Raises InvalidInputError for a state that there is not."""
        unknown = sorted(set(states) - set(STATES))
        if unknown:
            raise InvalidInputError("unknown state", received=unknown, expected=", ".join(STATES))
        found = self._records.list(_KIND, states=states, collection=collection, before=before, limit=limit)
        return [_job(one) for one in found]

    def count(self, state: State) -> int:
        """How many jobs are in a state."""
        return self._records.count(_KIND, states=[state])

    def count_dead(self) -> int:
        """How many dead letters there are."""
        return self._records.count(_DEAD)

    def cancel(self, job_id: str) -> Job:
        """Ask a job to stop; one that has not begun stops at once. Raises ConflictError for one that has ended."""
        for _ in range(_TRIES):
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
        """Queue a cancelled or failed job again; it goes on where it stopped. Raises ConflictError for others."""
        job = self.get(job_id)
        if job.state not in {"cancelled", "failed"}:
            raise ConflictError("the job cannot be resumed", received=job.state, expected="cancelled or failed")
        with self._only_one(job.kind, job.collection) if job.kind in ALONE else nullcontext():
            return self._queue(replace(job, attempts=0, error="", message="", ended=""))

    def approve(self, job_id: str, by: str = "") -> Job:
        """Let a job that waits for it go on. Raises ConflictError for others."""
        job = self.get(job_id)
        if job.state != "waiting":
            raise ConflictError("the job does not wait for approval", received=job.state, expected="waiting")
        told = {**job.progress, "approved_by": by, "approved_at": now()}
        return self._queue(replace(job, stage="switch", message="approved", progress=told))

    def take(self, job_id: str) -> RunningJob | None:
        """Begin, or go on with, a job; None where there is nothing to do or somebody else is at it."""
        for _ in range(_TRIES):
            found = self._records.get(_KIND, job_id)
            if found is None:
                return None
            job = _job(found)
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
                heartbeat=time.time(),
                started=job.started or now(),
                # Whoever ran it before has died without a word: that counts as a try.
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
        return job.heartbeat > time.time() - self._silent_s and not has_died(job.owner)

    def sweep(self) -> int:
        """Queue again what nobody is at; how many jobs that were."""
        count = 0
        for job in self.list(states=("queued", "running", "cancelling"), limit=_PAGE):
            try:
                if job.state == "queued":
                    # Sent, but not taken for so long: the task is lost, or waits behind others; a second does no harm.
                    if job.heartbeat > time.time() - self._silent_s or job.not_before > time.time():
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
        """Forget what ended long ago; how many jobs and dead letters."""
        ended = self._records.list(_KIND, states=ENDED, before=oldest_id("j", keep_days), limit=_PAGE)
        for one in ended:
            while rejects := self._records.list(_REJECT, collection=one.id, limit=_PAGE):
                self._records.remove(_REJECT, [row.id for row in rejects])
        dead = self._records.list(_DEAD, before=oldest_id("d", keep_days), limit=_PAGE)
        return self._records.remove(_KIND, [one.id for one in ended]) + self._records.remove(
            _DEAD, [one.id for one in dead]
        )

    def rejects(self, job_id: str, limit: int = 100) -> Sequence[Mapping[str, Any]]:
        """Rejected rows of an ingestion job, by file and line, the last first."""
        self.get(job_id)
        return [one.body for one in self._records.list(_REJECT, collection=job_id, limit=limit)]

    def bury(self, task: str, args: Sequence[str], error: str, detail: str) -> str:
        """Keep a task that failed for good; the dead letter's id."""
        return self._table.bury(task, args, error, detail)

    def dead_letters(self, before: str | None = None, limit: int = 100) -> Sequence[DeadLetter]:
        """What failed for good, the newest first."""
        return [DeadLetter(one.id, **one.body) for one in self._records.list(_DEAD, before=before, limit=limit)]

    def unbury(self, letter: str) -> DeadLetter:
        """Take a dead letter away, so that its task may be tried again. Raises NotFoundError."""
        found = self._records.get(_DEAD, letter)
        if found is None or not self._records.remove(_DEAD, [letter]):
            raise NotFoundError("no such dead letter", received=letter)
        return DeadLetter(found.id, **found.body)

    def _queue(self, job: Job) -> Job:
        queued = self._table.put(replace(job, state="queued", owner="", heartbeat=time.time(), not_before=0.0))
        self._jobs.run(job.id, job.kind)
        return queued

    def _cancelled(self, job: Job) -> Job:
        return self._table.put(replace(job, state="cancelled", owner="", ended=now()))


class RunningJob:
    """A job in the hands of the worker that runs it. Every call raises TakenOverError once another worker does."""

    def __init__(self, table: _Table, jobs: Jobs, job: Job, *, max_attempts: int, retry_s: float) -> None:
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
        kept = self._table.records.count(_REJECT, collection=self.job.id)
        self._table.add_rejects(self.job.id, rows[: max(0, most - kept)])

    def _change(self, **changes: Any) -> None:
        with self._lock:
            self._put(changes)

    def _put(self, changes: dict[str, Any]) -> None:
        for _ in range(_TRIES):
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


def _job(record: Record) -> Job:
    return Job(
        id=record.id,
        state=cast("State", record.state),
        collection=record.collection,
        version=record.version,
        **record.body,
    )
