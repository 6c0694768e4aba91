"""Routes of background work: uploads, jobs, workers and queues, dead letters."""

from __future__ import annotations

import logging
import time
from collections import Counter
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from hyblink.app.access.keys import Role, check_everywhere
from hyblink.app.api import schemas as models
from hyblink.app.api.answers import CONFLICT, NOT_FOUND, Allowed, Authorization, Before, Limit, json_answer
from hyblink.app.bootstrap import App
from hyblink.app.core.errors import UnavailableError
from hyblink.app.core.ports.work import Record
from hyblink.app.engines.catalog import check_name
from hyblink.app.jobs.job import OPEN, WORKER, Job

log = logging.getLogger(__name__)
JobId = Annotated[str, Path(description="The job's id.", pattern=r"^j[0-9T]{20}[0-9]-[0-9a-f]{6}$")]
LetterId = Annotated[str, Path(description="The dead letter's id.", pattern=r"^d[0-9T]{20}[0-9]-[0-9a-f]{6}$")]


def job_routes(app: App, allowed: Allowed) -> APIRouter:
    """The router; `allowed` checks every call."""
    router = APIRouter()
    limits = app.settings.jobs

    def seen(job_id: str, authorization: str | None, *, change: bool = False) -> Job:
        """The job, if the caller may ingest into its collection; to change what administrators began takes one."""
        allowed(authorization, Role.INGEST, None)
        job = app.work.get(job_id)
        of_admins = change and job.kind != "ingest"
        allowed(authorization, Role.ADMIN if of_admins else Role.INGEST, job.collection)
        return job

    @router.post(
        "/v1/uploads",
        tags=["jobs"],
        summary="Store a file for an ingestion job",
        description=f"The body is the file, at most {limits.max_upload_bytes} bytes; `name` says its format. "
        f"Uploads are kept for {limits.keep_days:g} days.",
        status_code=201,
        responses={201: {"model": models.UploadAnswer}},
        response_model=None,
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
            }
        },
    )
    async def upload(
        request: Request,
        name: Annotated[str, Query(description="The file's name, such as corpus.jsonl.gz.", max_length=200)],
        authorization: Authorization = None,
    ) -> Response:
        await run_in_threadpool(
            allowed, authorization, Role.INGEST, None
        )  # it may ask a store, or an identity provider
        return json_answer(asdict(await app.uploads.receive(name, request.stream())), 201)

    @router.post(
        "/v1/jobs",
        tags=["jobs"],
        summary="Begin a job",
        status_code=202,
        responses={202: {"model": models.JobAnswer}, **NOT_FOUND, **CONFLICT},
        response_model=None,
    )
    def create(body: models.JobBody, authorization: Authorization = None) -> Response:
        key = allowed(authorization, Role.INGEST, check_name(body.collection))
        job = app.start_ingestion(body.collection, body.params(), "" if key is None else key.id)
        return json_answer(shown_job(job), 202)

    @router.get(
        "/v1/jobs",
        tags=["jobs"],
        summary="Jobs, the newest first",
        responses={200: {"model": models.JobsAnswer}},
        response_model=None,
    )
    def jobs(
        state: Annotated[list[str] | None, Query(description="Only in these states.", max_length=10)] = None,
        collection: Annotated[
            str | None, Query(description="Only of this collection.", pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")
        ] = None,
        before: Before = None,
        limit: Limit = 50,
        authorization: Authorization = None,
    ) -> Response:
        key = allowed(authorization, Role.INGEST, collection)
        found = app.work.list(states=state or (), collection=collection, before=before, limit=limit)
        mine = [job for job in found if key is None or key.allows(Role.INGEST, job.collection)]
        return json_answer({"jobs": [shown_job(job) for job in mine]})

    @router.get(
        "/v1/jobs/{job_id}",
        tags=["jobs"],
        summary="A job",
        responses={200: {"model": models.JobAnswer}, **NOT_FOUND},
        response_model=None,
    )
    def job(job_id: JobId, authorization: Authorization = None) -> Response:
        return json_answer(shown_job(seen(job_id, authorization)))

    @router.get(
        "/v1/jobs/{job_id}/rejects",
        tags=["jobs"],
        summary="Rows that a job has rejected, and why",
        description=f"At most {limits.max_rejects} of a job are kept; all are counted.",
        responses={200: {"model": models.RejectsAnswer}, **NOT_FOUND},
        response_model=None,
    )
    def rejects(job_id: JobId, limit: Limit = 100, authorization: Authorization = None) -> Response:
        seen(job_id, authorization)
        return json_answer({"rejects": app.work.rejects(job_id, limit)})

    @router.post(
        "/v1/jobs/{job_id}/cancel",
        tags=["jobs"],
        summary="Stop a job; what it has written stays",
        responses={200: {"model": models.JobAnswer}, **NOT_FOUND, **CONFLICT},
        response_model=None,
    )
    def cancel(job_id: JobId, authorization: Authorization = None) -> Response:
        seen(job_id, authorization, change=True)
        return json_answer(shown_job(app.cancel_job(job_id)))

    @router.post(
        "/v1/jobs/{job_id}/resume",
        tags=["jobs"],
        summary="Go on with a cancelled or failed job where it stopped",
        responses={200: {"model": models.JobAnswer}, **NOT_FOUND, **CONFLICT},
        response_model=None,
    )
    def resume(job_id: JobId, authorization: Authorization = None) -> Response:
        seen(job_id, authorization, change=True)
        return json_answer(shown_job(app.work.resume(job_id)))

    @router.get(
        "/v1/admin/queues",
        tags=["administration"],
        summary="Workers, and what waits",
        responses={200: {"model": models.QueuesAnswer}},
        response_model=None,
    )
    def queues(authorization: Authorization = None) -> Response:
        check_everywhere(allowed(authorization, Role.ADMIN, None))
        return json_answer(queues_of(app))

    @router.get(
        "/v1/admin/dead-letters",
        tags=["administration"],
        summary="Tasks that failed for good, the newest first",
        responses={200: {"model": models.DeadLettersAnswer}},
        response_model=None,
    )
    def dead(before: Before = None, limit: Limit = 100, authorization: Authorization = None) -> Response:
        check_everywhere(allowed(authorization, Role.ADMIN, None))
        return json_answer({"dead_letters": [asdict(one) for one in app.work.dead_letters(before, limit)]})

    @router.post(
        "/v1/admin/dead-letters/{letter_id}/replay",
        tags=["administration"],
        summary="Try the task of a dead letter again",
        responses={200: {"model": models.DeadLetterAnswer}, **NOT_FOUND, **CONFLICT},
        response_model=None,
    )
    def replay(letter_id: LetterId, authorization: Authorization = None) -> Response:
        check_everywhere(allowed(authorization, Role.ADMIN, None))
        return json_answer(asdict(app.replay(letter_id)))

    return router


def shown_job(job: Job) -> dict[str, Any]:
    """What a caller sees: who holds it and its fence are the workers' business."""
    hidden = {"fence", "owner", "version", "heartbeat", "not_before"}
    return {name: value for name, value in asdict(job).items() if name not in hidden}


def queues_of(app: App) -> dict[str, Any]:
    """Live workers, tasks by queue (none while the broker is away), jobs by state and stage, passages that wait."""
    workers: list[Record] = app.catalog.records().list(WORKER, limit=1000)
    now = time.time()
    waiting = {}
    for name in app.catalog.names():
        counts = app.catalog.engine(name).store.reader().counts()
        waiting[name] = counts.passages - counts.encoded
    try:
        lengths = app.jobs.lengths()
    except UnavailableError as error:
        log.warning("%s", error)
        lengths = {}
    open_jobs = app.work.list(states=OPEN, limit=1000)
    stages = Counter((job.kind, job.stage or job.state) for job in open_jobs)
    return {
        "queues": lengths,
        "stages": [{"kind": kind, "stage": stage, "jobs": count} for (kind, stage), count in sorted(stages.items())],
        "workers": [
            {
                **{key: one.body[key] for key in ("queues", "device", "pid")},
                "silent_s": round(now - one.body["seen"], 1),
            }
            for one in workers
            if now - one.body["seen"] < app.settings.jobs.silent_s
        ],
        "jobs": {state: app.work.count(state) for state in ("queued", "running", "waiting", "cancelling", "failed")},
        "waiting": waiting,
        "dead_letters": app.work.count_dead(),
    }
