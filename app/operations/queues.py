"""The state of background work: live workers, queue lengths, open jobs, pending passages."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

from hyblink.app.application import App
from hyblink.app.core.errors import UnavailableError
from hyblink.app.core.ports.jobs import Record
from hyblink.app.jobs.job import OPEN, WORKER

log = logging.getLogger(__name__)


def queues_of(app: App) -> dict[str, Any]:
    """Return the state of background work as JSON-serialisable data.

    `workers` are alive; `queues` counts tasks by queue and is empty while the broker is down; `jobs` and `stages`
    count jobs; `waiting` counts unencoded passages by collection.
    """
    workers: list[Record] = app.catalog.records().list(WORKER, limit=1000)
    now = app.catalog.records().time()
    waiting = {}
    for name in app.catalog.names():
        counts = app.catalog.engine(name).store.reader().counts()
        waiting[name] = counts.passages - counts.encoded
    try:
        lengths = app.jobs.lengths()
    except UnavailableError as error:
        log.warning("%s", error)
        lengths = {}
    open_jobs = app.job_records.list(states=OPEN, limit=1000)
    stages = Counter((job.kind, job.stage or job.state) for job in open_jobs)
    return {
        "queues": lengths,
        "stages": [{"kind": kind, "stage": stage, "jobs": count} for (kind, stage), count in sorted(stages.items())],
        "workers": [
            {
                **{key: worker.body[key] for key in ("queues", "device", "pid")},
                "silent_s": round(now - worker.body["seen"], 1),
            }
            for worker in workers
            if now - worker.body["seen"] < app.settings.jobs.silent_s
        ],
        "jobs": {
            state: app.job_records.count(state) for state in ("queued", "running", "waiting", "cancelling", "failed")
        },
        "waiting": waiting,
        "dead_letters": app.job_records.count_dead(),
    }
