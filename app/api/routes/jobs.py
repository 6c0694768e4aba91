"""Routes for background work: uploads, jobs, workers and queues, dead letters."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import Path, Query, Request, Response

from hyblink.app.access.keys import Role
from hyblink.app.api.answers import CONFLICT, NOT_FOUND, Before, Limit, json_answer
from hyblink.app.api.dependencies import AppDep, Caller, CallerDep, guarded_router, requires
from hyblink.app.api.schemas.jobs import (
    DeadLetterAnswer,
    DeadLettersAnswer,
    JobAnswer,
    JobBody,
    JobsAnswer,
    QueuesAnswer,
    RejectsAnswer,
    UploadAnswer,
)
from hyblink.app.application import App
from hyblink.app.core.names import COLLECTION_PATTERN
from hyblink.app.jobs.job import Job
from hyblink.app.operations.jobs import cancel_job, start_ingestion, start_sync
from hyblink.app.operations.jobs import replay as replay_task
from hyblink.app.operations.queues import queues_of

log = logging.getLogger(__name__)
JobId = Annotated[str, Path(description="The job's id.", pattern=r"^j[0-9T]{20}[0-9]-[0-9a-f]{6}$")]
LetterId = Annotated[str, Path(description="The dead letter's id.", pattern=r"^d[0-9T]{20}[0-9]-[0-9a-f]{6}$")]


router = guarded_router()


def seen(app: App, caller: Caller, job_id: str, *, change: bool = False) -> Job:
    """Return a job, after checking the caller's role on its collection.

    Ingestion jobs need the role `ingest`. To `change` other jobs, such as rebuilds, the role `admin` is needed. Raises
    NotFoundError, ForbiddenError.
    """
    job = app.job_records.get(job_id)
    of_admins = change and job.kind not in ("ingest", "sync")
    caller.on(job.collection, Role.ADMIN if of_admins else Role.INGEST)
    return job


@router.post(
    "/v1/uploads",
    tags=["jobs"],
    summary="Store a file for an ingestion job",
    description="The body is the file, at most {jobs.max_upload_bytes} bytes; `name` says its format. "
    "Uploads are kept for {jobs.keep_days:g} days.",
    status_code=201,
    responses={201: {"model": UploadAnswer}},
    response_model=None,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
@requires(Role.INGEST)
async def upload(
    app: AppDep,
    request: Request,
    caller: CallerDep,
    name: Annotated[str, Query(description="The file's name, such as corpus.jsonl.gz.", max_length=200)],
) -> Response:
    return json_answer(asdict(await app.uploads.receive(name, request.stream(), caller.id)), 201)


@router.post(
    "/v1/jobs",
    tags=["jobs"],
    summary="Begin a job",
    status_code=202,
    responses={202: {"model": JobAnswer}, **NOT_FOUND, **CONFLICT},
    response_model=None,
)
@requires(Role.INGEST)
def create(body: JobBody, app: AppDep, caller: CallerDep) -> Response:
    caller.on(body.collection)
    start = start_sync if body.kind == "sync" else start_ingestion
    job = start(app, body.collection, body.params(), caller.id)
    return json_answer(shown_job(job), 202)


@router.get(
    "/v1/jobs",
    tags=["jobs"],
    summary="Jobs, the newest first",
    responses={200: {"model": JobsAnswer}},
    response_model=None,
)
@requires(Role.INGEST, collection=None)
def jobs(
    app: AppDep,
    caller: CallerDep,
    state: Annotated[list[str] | None, Query(description="Only in these states.", max_length=10)] = None,
    collection: Annotated[str | None, Query(description="Only of this collection.", pattern=COLLECTION_PATTERN)] = None,
    before: Before = None,
    limit: Limit = 50,
) -> Response:
    found = app.job_records.list(states=state or (), collection=collection, before=before, limit=limit)
    mine = [job for job in found if caller.sees(job.collection)]
    return json_answer({"jobs": [shown_job(job) for job in mine]})


@router.get(
    "/v1/jobs/{job_id}",
    tags=["jobs"],
    summary="A job",
    responses={200: {"model": JobAnswer}, **NOT_FOUND},
    response_model=None,
)
@requires(Role.INGEST)
def job(job_id: JobId, app: AppDep, caller: CallerDep) -> Response:
    return json_answer(shown_job(seen(app, caller, job_id)))


@router.get(
    "/v1/jobs/{job_id}/rejects",
    tags=["jobs"],
    summary="Rows that a job has rejected, and why",
    description="At most {jobs.max_rejects} of a job are kept; all are counted.",
    responses={200: {"model": RejectsAnswer}, **NOT_FOUND},
    response_model=None,
)
@requires(Role.INGEST)
def rejects(job_id: JobId, app: AppDep, caller: CallerDep, limit: Limit = 100) -> Response:
    seen(app, caller, job_id)
    return json_answer({"rejects": app.job_records.rejects(job_id, limit)})


@router.post(
    "/v1/jobs/{job_id}/cancel",
    tags=["jobs"],
    summary="Stop a job; what it has written stays",
    responses={200: {"model": JobAnswer}, **NOT_FOUND, **CONFLICT},
    response_model=None,
)
@requires(Role.INGEST, audited=True)
def cancel(job_id: JobId, app: AppDep, caller: CallerDep) -> Response:
    seen(app, caller, job_id, change=True)
    return json_answer(shown_job(cancel_job(app, job_id)))


@router.post(
    "/v1/jobs/{job_id}/resume",
    tags=["jobs"],
    summary="Go on with a cancelled or failed job where it stopped",
    responses={200: {"model": JobAnswer}, **NOT_FOUND, **CONFLICT},
    response_model=None,
)
@requires(Role.INGEST, audited=True)
def resume(job_id: JobId, app: AppDep, caller: CallerDep) -> Response:
    seen(app, caller, job_id, change=True)
    return json_answer(shown_job(app.job_records.resume(job_id)))


@router.get(
    "/v1/admin/queues",
    tags=["administration"],
    summary="Workers, and what waits",
    responses={200: {"model": QueuesAnswer}},
    response_model=None,
)
@requires(Role.ADMIN, everywhere=True)
def queues(app: AppDep) -> Response:
    return json_answer(queues_of(app))


@router.get(
    "/v1/admin/dead-letters",
    tags=["administration"],
    summary="Tasks that failed for good, the newest first",
    responses={200: {"model": DeadLettersAnswer}},
    response_model=None,
)
@requires(Role.ADMIN, everywhere=True)
def dead(app: AppDep, before: Before = None, limit: Limit = 100) -> Response:
    return json_answer(
        {"dead_letters": [asdict(dead_letter) for dead_letter in app.job_records.dead_letters(before, limit)]}
    )


@router.post(
    "/v1/admin/dead-letters/{letter_id}/replay",
    tags=["administration"],
    summary="Try the task of a dead letter again",
    responses={200: {"model": DeadLetterAnswer}, **NOT_FOUND, **CONFLICT},
    response_model=None,
)
@requires(Role.ADMIN, everywhere=True, audited=True)
def replay(letter_id: LetterId, app: AppDep) -> Response:
    return json_answer(asdict(replay_task(app, letter_id)))


def shown_job(job: Job) -> dict[str, Any]:
    """Return the fields of a job that clients see, without the workers' bookkeeping (owner, fence, heartbeat, …)."""
    hidden = {"fence", "owner", "version", "heartbeat", "not_before"}
    return {name: value for name, value in asdict(job).items() if name not in hidden}
