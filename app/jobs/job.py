"""The data types of jobs: background work with a persistent record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from hyblink.app.core.errors import ConflictError

WORKER = "worker"
"""The kind of the records by which workers report that they are alive."""

RUN_TASK, RUN_LONG_TASK = "hyblink.run", "hyblink.run_long"
State = Literal["queued", "running", "waiting", "cancelling", "cancelled", "done", "refused", "failed"]
STATES: tuple[State, ...] = get_args(State)
ENDED: tuple[State, ...] = ("cancelled", "done", "refused", "failed")
OPEN: tuple[State, ...] = ("queued", "running", "waiting", "cancelling")
ALONE = ("retrain", "sync")
"""Kinds of jobs of which a collection can have only one open at a time."""


class TakenOverError(ConflictError):
    """Raised when another worker has taken over the job."""

    code = "taken_over"


class JobCancelledError(ConflictError):
    """Raised in a running job when its cancellation was requested."""

    code = "cancelled"


@dataclass(frozen=True, slots=True)
class Job:
    """A job's record. Times are in UTC; `heartbeat` and `not_before` are in seconds since 1970.

    `fence` grows each time a worker takes the job, so that an earlier worker cannot write any more. `owner` is the
    process that runs it, `attempts` the number of failures without progress since.
    """

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
    """A task that failed with a permanent error or after its last retry."""

    id: str
    task: str
    args: Sequence[str]
    error: str
    detail: str
    at: str
