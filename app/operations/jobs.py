"""Start, run and cancel jobs, and replay dead letters."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hyblink.app.application import App
from hyblink.app.core.errors import ConflictError, HyblinkError, InvalidInputError
from hyblink.app.jobs.celery_jobs import ANNOTATE, ENCODE, QUEUE_OF_JOB
from hyblink.app.jobs.in_process import TRY_AGAIN
from hyblink.app.jobs.job import RUN_LONG_TASK, RUN_TASK, DeadLetter, Job, JobCancelledError, TakenOverError
from hyblink.app.jobs.running import RunningJob
from hyblink.app.operations.collections import ensure_collection
from hyblink.app.operations.generations import rebuild
from hyblink.app.operations.retraining import Retraining, discard_candidate
from hyblink.app.operations.sources import named
from hyblink.indexer.ingest.ingest_job import check_params, run_ingest_job

log = logging.getLogger(__name__)


def start_ingestion(app: App, collection: str, params: Mapping[str, Any], by: str = "") -> Job:
    """Create and queue a job that ingests an upload, a folder or a Python package into a collection.

    The collection is created if it does not exist. Raises UserError for bad parameters, ConflictError for a
    knowledge base.
    """
    checked = check_params(params, app.settings, app.uploads, by)
    if ensure_collection(app, checked.spec(collection)).kind == "entities":
        raise ConflictError("the collection is a knowledge base", received=collection, expected="entities:bulk")
    if checked.folder:
        path = Path(checked.folder)
        own = named(app, collection, path)
        params = {**params, "prefix": own.prefix, "name": own.name}
    return app.job_records.create("ingest", collection, params, by)


def start_rebuild(app: App, collection: str, note: str = "", by: str = "") -> Job:
    """Create and queue a job that builds and publishes the collection's next generation. Raises NotFoundError."""
    app.catalog.spec(collection)
    return app.job_records.create("rebuild", collection, {"note": note}, by)


def run_job(app: App, job_id: str, stop: Callable[[], bool]) -> None:
    """Run a job for one time slice, unless another worker runs it. Failures are recorded in the job, never raised."""
    running = app.job_records.take(job_id)
    if running is None:
        return
    kind = running.job.kind
    try:
        if kind not in _RUNS:
            raise InvalidInputError("unknown kind of job", received=kind, expected=", ".join(QUEUE_OF_JOB))
        _RUNS[kind](app, running, stop)
    except TakenOverError as error:
        log.warning("job %s: %s", job_id, error)
    except JobCancelledError:
        running.cancelled()
        discard_candidate(app.catalog, running.job)
    except Exception as error:
        # Any failure is recorded in the job.
        log.warning("job %s: %s", job_id, error, exc_info=not isinstance(error, HyblinkError))
        may_pass = isinstance(error, (*TRY_AGAIN, ConflictError))
        running.failed(error, traceback.format_exc(), may_pass=may_pass)


def _ingest(app: App, running: RunningJob, stop: Callable[[], bool]) -> None:
    collection = running.job.collection
    engine = app.catalog.engine(collection)
    run_ingest_job(
        running,
        engine=engine,
        service=app.documents,
        uploads=app.uploads,
        settings=app.settings,
        is_current=lambda: app.catalog.current(collection) == engine.record.id,
        stop=stop,
    )


def _rebuild(app: App, running: RunningJob, stop: Callable[[], bool]) -> None:
    del stop
    told: dict[str, int] = {}

    def progress(stage: str, count: int) -> None:
        told[stage] = told.get(stage, 0) + count
        running.report(stage=stage, progress=told)

    with running.alive(app.settings.jobs.silent_s / 3):
        built = rebuild(app, running.job.collection, str(running.job.params.get("note", "")), progress)
    running.done({"generation": built.id, **told})


def _retrain(app: App, running: RunningJob, stop: Callable[[], bool]) -> None:
    del stop
    with running.alive(app.settings.jobs.silent_s / 3):
        Retraining(app, running).run()
    if running.job.state == "cancelled":
        discard_candidate(app.catalog, running.job)


_RUNS: Mapping[str, Callable[[App, RunningJob, Callable[[], bool]], None]] = {
    "ingest": _ingest,
    "rebuild": _rebuild,
    "retrain": _retrain,
}


def cancel_job(app: App, job_id: str) -> Job:
    """Cancel a job; the candidate generation of a retraining that has not started or waits for approval is deleted.

    A running job stops at its next progress report. Raises NotFoundError, and ConflictError if the job has ended.
    """
    job = app.job_records.cancel(job_id)
    if job.state == "cancelled":
        discard_candidate(app.catalog, job)
    return job


def replay(app: App, letter_id: str) -> DeadLetter:
    """Remove a dead letter and queue its task again; return the letter.

    Raises NotFoundError, and ConflictError if its job cannot be resumed.
    """
    letter = app.job_records.take_dead_letter(letter_id)
    if letter.task == ENCODE:
        app.jobs.encode(letter.args[0], letter.args[1], [0])
    elif letter.task == ANNOTATE:
        app.jobs.annotate(letter.args[0])
    elif letter.task in {RUN_TASK, RUN_LONG_TASK}:
        app.job_records.resume(letter.args[0])
    return letter
