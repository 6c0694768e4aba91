"""Read and write jobs, rejected rows and dead letters as records."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import cast

from hyblink.app.core.clock import now, sortable_id
from hyblink.app.core.errors import NotFoundError
from hyblink.app.core.ports.jobs import Record, Records
from hyblink.app.core.types.documents import Reject
from hyblink.app.jobs.job import Job, State

JOB, REJECTED_ROW, DEAD_LETTER = "job", "reject", "dead"
"""The kinds of records."""
PAGE = 1000
TRIES = 20
log = logging.getLogger(__name__)


class JobTable:
    """Storage of jobs, their rejected rows, and dead letters."""

    def __init__(self, records: Records) -> None:
        self.records = records

    def get(self, job_id: str) -> Job:
        """Return a job. Raises NotFoundError."""
        found = self.records.get(JOB, job_id)
        if found is None:
            raise NotFoundError("no such job", received=job_id)
        return job_of(found)

    def put(self, job: Job) -> Job:
        """Store a job and return it with its new version. Raises ConflictError if the stored version differs."""
        body = asdict(job)
        for name in ("id", "state", "collection", "version"):
            del body[name]
        stored = self.records.put(Record(JOB, job.id, body, job.state, job.collection, job.version))
        return replace(job, version=stored.version)

    def add_rejects(self, job_id: str, rows: Sequence[Reject]) -> None:
        """Store rejected rows of a job by file and line (idempotent)."""
        self.records.add(
            [
                Record(REJECTED_ROW, f"{job_id}/{row.file}:{row.line:09d}"[:512], asdict(row), collection=job_id)
                for row in rows
            ]
        )

    def add_dead_letter(self, task: str, args: Sequence[str], error: str, detail: str) -> str:
        """Store a dead letter for a failed task; return the letter's id."""
        letter = sortable_id("d")
        body = {"task": task, "args": list(args), "error": error[:2000], "detail": detail[-8000:], "at": now()}
        self.records.put(Record(DEAD_LETTER, letter, body))
        log.error("%s %s is a dead letter now (%s): %s", task, args, letter, error)
        return letter


def job_of(record: Record) -> Job:
    """Return the job that a record stores."""
    return Job(
        id=record.id,
        state=cast("State", record.state),
        collection=record.collection,
        version=record.version,
        **record.body,
    )
