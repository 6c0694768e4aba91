"""Periodic maintenance: re-queue lost work, delete what has expired, merge index segments."""

from __future__ import annotations

import logging
import shutil
import time

from hyblink.app.access.audit import Audit
from hyblink.app.application import App
from hyblink.app.core.errors import ConflictError, HyblinkError, UnavailableError
from hyblink.app.core.ports.jobs import Record
from hyblink.app.operations.collections import for_each_collection, unless_dropped
from hyblink.app.operations.jobs import start_sync
from hyblink.app.operations.retraining import discard_candidate, start_retraining

log = logging.getLogger(__name__)

_SYNCED = "synced"
SWEPT = 2048
"""The largest number of unencoded passages that a sweep queues per collection; each block of them is one task."""
_DAY_S = 86_400


def sweep(app: App) -> None:
    """Queue the pending work that no live process has claimed.

    This is unencoded passages, documents to annotate, scheduled retrainings that are due, and jobs whose task was lost
    or whose worker died.
    """
    for name in app.catalog.names():
        try:
            app.catalog.keep_copy(name)
            engine = app.catalog.engine(name)
            if engine.record.dense_dimension and not app.claims.live(engine):
                app.jobs.encode(name, engine.record.id, engine.store.reader().unencoded(SWEPT).tolist())
            if app.catalog.annotation(name) is not None:
                app.jobs.annotate(name)
            engine.tidy()
        except HyblinkError as error:
            log.error("collection %s: %s", name, error)
    for due in app.schedules.take_due(app.catalog.records().time()):
        try:
            start_retraining(app, due.collection, due.params, due.by)
        except UnavailableError as error:
            app.schedules.put_off(due)
            log.warning("the scheduled retraining of %s has to wait: %s", due.collection, error)
        except HyblinkError as error:
            log.warning("the scheduled retraining of %s did not begin: %s", due.collection, error)
    _sync_what_is_due(app)
    app.job_records.sweep()


def _sync_what_is_due(app: App) -> None:
    """Begin the syncs of the settings' sources whose time has come."""
    records = app.catalog.records()
    for name, told in app.settings.sources.items():
        if not told.every_hours:
            continue
        last = records.get(_SYNCED, name)
        if last is not None and records.time() - float(last.body["at"]) < told.every_hours * 3600:
            continue
        try:
            start_sync(app, told.collection or name, {"source": name})
            records.add([Record(_SYNCED, name, {"at": records.time()}, collection=told.collection or name)])
        except ConflictError as error:
            log.info("the sync of %s has to wait: %s", name, error)
        except HyblinkError as error:
            log.warning("the sync of %s did not begin: %s", name, error)


def tidy(app: App) -> None:
    """Delete what is past its retention.

    This is old generations, uploads, ended jobs, dead letters, work folders, cached hidden states, and the old part of
    clicks and of the audit log.
    """
    for_each_collection(app, lambda name: app.catalog.drop_old(name, app.settings.keep_generations))
    app.uploads.tidy(app.settings.jobs.keep_days)
    app.job_records.tidy(app.settings.jobs.keep_days)
    for job in app.job_records.list(states=("cancelled", "refused"), limit=SWEPT):
        if job.kind == "retrain" and job.collection in app.catalog.names():
            with unless_dropped(app, job.collection):
                discard_candidate(app.catalog, job)  # the worker that should have deleted it died
    for folder in app.settings.work_dir.glob("j*"):
        if not app.job_records.exists(folder.name):
            shutil.rmtree(folder, ignore_errors=True)
    oldest = time.time() - app.settings.jobs.keep_days * _DAY_S
    for folder in (app.settings.data_dir / "states").glob("*"):
        if folder.is_dir() and max(path.stat().st_mtime for path in (folder, *folder.glob("*"))) < oldest:
            shutil.rmtree(folder, ignore_errors=True)  # a cache: training recomputes the states if needed
    app.feedback.tidy(app.settings.jobs.keep_clicks_days)
    Audit(app.catalog.records()).tidy(app.settings.api.keep_audit_days)


def merge(app: App) -> None:
    """Merge the segments and buffers of every collection's current indexes."""
    for_each_collection(app, lambda name: app.catalog.engine(name).compact())
