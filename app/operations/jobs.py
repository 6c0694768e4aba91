"""Start, run and cancel jobs, and replay dead letters."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hyblink.app.application import App
from hyblink.app.core.errors import ConflictError, HyblinkError, InvalidInputError, NotFoundError
from hyblink.app.core.progress import Advance
from hyblink.app.core.settings import SourceSettings
from hyblink.app.core.types.collections import CollectionSpec
from hyblink.app.jobs.celery_jobs import ANNOTATE, ENCODE, QUEUE_OF_JOB
from hyblink.app.jobs.in_process import TRY_AGAIN
from hyblink.app.jobs.job import RUN_LONG_TASK, RUN_TASK, DeadLetter, Job, JobCancelledError, TakenOverError
from hyblink.app.jobs.running import RunningJob
from hyblink.app.operations.collections import ensure_collection
from hyblink.app.operations.generations import rebuild
from hyblink.app.operations.retraining import Retraining, discard_candidate
from hyblink.app.operations.sources import named, opened_source
from hyblink.app.operations.sync import MostlyGoneError, sync
from hyblink.indexer.ingest.ingest_job import COUNTS, allowed_folder, check_params, run_ingest_job

log = logging.getLogger(__name__)
_REPORT_S = 2.0
_NOTES = 100


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


def start_sync(app: App, collection: str, params: Mapping[str, Any], by: str = "") -> Job:
    """Create and queue a job that keeps a collection in step with a source.

    `params` are `source`, the name of one in the settings that belongs to this collection, or `folder`, below one of
    `jobs.roots`; and `force`. Raises UserError for others, ConflictError while another sync of the collection is open.
    """
    _synced(app, collection, params)
    if ensure_collection(app, CollectionSpec(collection)).kind == "entities":
        raise ConflictError("the collection is a knowledge base", received=collection, expected="entities:bulk")
    return app.job_records.create("sync", collection, params, by)


def _synced(app: App, collection: str, params: Mapping[str, Any]) -> tuple[str, SourceSettings]:
    """(name or "", description) of the source of a sync job."""
    name, folder = str(params.get("source") or ""), str(params.get("folder") or "")
    if bool(name) == bool(folder):
        raise InvalidInputError("sync with what?", received=dict(params), expected="either source or folder")
    if folder:
        return "", SourceSettings(folder=allowed_folder(folder, app.settings.jobs.roots))
    told = app.settings.sources.get(name)
    if told is None or (told.collection or name) != collection:
        mine = [one for one, other in app.settings.sources.items() if (other.collection or one) == collection]
        raise NotFoundError(
            "no such source of this collection",
            received=name,
            expected=f"one of the settings: {', '.join(mine) or 'none'}",
        )
    return name, told


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


def _sync(app: App, running: RunningJob, stop: Callable[[], bool]) -> None:
    del stop
    collection, params = running.job.collection, running.job.params
    name, told = _synced(app, collection, params)
    counts: dict[str, int] = {}

    def progress(stage: str, total: int | None = None) -> Advance:
        del total

        def advance(count: int = 1, note: str = "") -> None:
            del note
            counts[stage] = counts.get(stage, 0) + count
            if time.monotonic() - reported[0] > _REPORT_S:
                reported[0] = time.monotonic()
                running.report(stage="reading", progress=counts)

        return advance

    reported = [time.monotonic()]
    inside = app.settings.jobs.roots if params.get("folder") else None
    with running.alive(app.settings.jobs.silent_s / 3):
        source = opened_source(app, collection, name, told, inside=inside)
        try:
            done = sync(app, collection, source, force=bool(params.get("force")), wait=False, progress=progress)
        except MostlyGoneError as error:  # it would not pass
            raise InvalidInputError(error.message, received=error.received, expected="force") from error
    engine = app.catalog.engine(collection)
    if engine.record.dense_dimension:
        app.jobs.encode(collection, engine.record.id, engine.store.reader().unencoded(1).tolist())
    assert done.ingested is not None
    report = done.ingested.report
    shown = {field: getattr(report, field) for field in COUNTS}
    running.done(
        {
            **shown, "removed": len(done.removed), "kept": len(done.kept), "renamed": done.renamed,
            "notes": [*report.skipped, *report.rejects, *report.notes][:_NOTES],
        }
    )  # fmt: skip


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
    "sync": _sync,
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
