"""A job: background work with a record of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from hyblink.app.core.errors import ConflictError

WORKER = "worker"
"""The kind of record that a worker keeps of itself."""

RUN_TASK, RUN_LONG_TASK = "hyblink.run", "hyblink.run_long"
State = Literal["queued", "running", "waiting", "cancelling", "cancelled", "done", "refused", "failed"]
STATES: tuple[State, ...] = get_args(State)
ENDED: tuple[State, ...] = ("cancelled", "done", "refused", "failed")
OPEN: tuple[State, ...] = ("queued", "running", "waiting", "cancelling")
ALONE = ("retrain",)
"""Kinds of which a collection has one open job at a time."""


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
