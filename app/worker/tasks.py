"""The Celery tasks. They carry only ids, and call the same functions as the in-process threads."""

from __future__ import annotations

import logging
import os
import re
import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from hyblink.app.application import App
from hyblink.app.bootstrap import build
from hyblink.app.core.errors import HyblinkError, InvalidInputError
from hyblink.app.core.logs import new_request_id, request_id
from hyblink.app.core.settings import Settings
from hyblink.app.jobs.celery_jobs import ANNOTATE, CHECK, ENCODE, MERGE, RUN, RUN_LONG, SWEEP, TIDY, celery_for
from hyblink.app.jobs.in_process import TRY_AGAIN
from hyblink.app.operations.annotation import annotate_waiting
from hyblink.app.operations.collections import check_all, unless_dropped
from hyblink.app.operations.encoding import encode_waiting
from hyblink.app.operations.jobs import run_job
from hyblink.app.operations.maintenance import merge as merge_app
from hyblink.app.operations.maintenance import sweep as sweep_app
from hyblink.app.operations.maintenance import tidy as tidy_app

if TYPE_CHECKING:
    from celery import Celery, Task

log = logging.getLogger(__name__)

_ID = re.compile(r"[\w/-]{1,200}")


class WorkerApp:
    """Builds the application of a worker process at its first task, that is, after the process was forked."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._app: App | None = None
        self._process = 0

    def get(self) -> App:
        """Return the application of this process; build it at the first call."""
        if self._app is None or self._process != os.getpid():
            self._app, self._process = build(self.settings), os.getpid()
        return self._app

    def close(self) -> None:
        """Close the application if this process has built one."""
        if self._app is not None and self._process == os.getpid():
            self._app.close()
            self._app = None


def worker_celery(settings: Settings, ending: Callable[[], bool] = lambda: False) -> tuple[Celery, WorkerApp]:
    """Return a Celery application with all tasks registered, and the `WorkerApp` that they use.

    `ending` tells the processes of a worker that it is being stopped: long tasks then end after their current block.
    """
    celery = celery_for(settings)
    mine = WorkerApp(settings)
    jobs = settings.jobs

    def until_enough() -> Callable[[], bool]:
        end = time.monotonic() + jobs.slice_s
        return lambda: ending() or time.monotonic() > end

    def attempt(this: Task, args: tuple[object, ...], do: Callable[[App], object]) -> None:
        """Run a task. Temporary errors are retried with growing pauses; other errors make it a dead letter."""
        ids = [str(arg) for arg in args]
        request_id.set(new_request_id(str((this.request.headers or {}).get("request_id", ""))))
        try:
            for item in ids:
                if not _ID.fullmatch(item):
                    raise InvalidInputError("a task with a bad id", received=item)
            do(mine.get())
        except TRY_AGAIN as error:
            tried = this.request.retries + 1
            if tried < jobs.max_attempts:
                raise this.retry(exc=error, countdown=jobs.retry_s * 2 ** (tried - 1), max_retries=None) from error
            log.warning("%s %s gives up, the sweep queues it again: %s", this.name, ids, error)
        except Exception as error:  # noqa: BLE001
            # An unexpected error must not make the broker redeliver the task for ever.
            _bury(mine, this.name, ids, error)

    def task(name: str, **options: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
        made = celery.task(name=name, bind=True, **options)
        return cast("Callable[[Callable[..., None]], Callable[..., None]]", made)

    @task(ENCODE)
    def encode(self: Task, collection: str, generation: str) -> None:
        def do(app: App) -> None:
            with unless_dropped(app, collection, generation):
                encode_waiting(app, collection, generation, until_enough())
                engine = app.catalog.engine(collection, generation)
                left = engine.store.reader().unencoded(1)
                if len(left) and app.catalog.current(collection) == generation and not app.claims.live(engine):
                    app.jobs.encode(collection, generation, left.tolist())

        attempt(self, (collection, generation), do)

    @task(ANNOTATE)
    def annotate(self: Task, collection: str) -> None:
        def do(app: App) -> None:
            with unless_dropped(app, collection):
                annotate_waiting(app, collection, until_enough())

        attempt(self, (collection,), do)

    @task(RUN)
    def run(self: Task, job_id: str) -> None:
        attempt(self, (job_id,), lambda app: run_job(app, job_id, lambda: False))

    @task(RUN_LONG, acks_late=False, time_limit=None, soft_time_limit=None)
    def run_long(self: Task, job_id: str) -> None:
        attempt(self, (job_id,), lambda app: run_job(app, job_id, lambda: False))

    @task(SWEEP)
    def sweep(self: Task) -> None:
        attempt(self, (), sweep_app)

    @task(TIDY)
    def tidy(self: Task) -> None:
        attempt(self, (), tidy_app)

    @task(MERGE)
    def merge(self: Task) -> None:
        attempt(self, (), merge_app)

    @task(CHECK)
    def check(self: Task) -> None:
        attempt(self, (), check_all)

    return celery, mine


def _bury(mine: WorkerApp, task: str, ids: list[str], error: Exception) -> None:
    text = str(error) if isinstance(error, HyblinkError) else f"{type(error).__name__}: {error}"
    try:
        mine.get().job_records.add_dead_letter(task, ids, text, traceback.format_exc())
    except HyblinkError as failed:
        log.error("%s %s failed (%s), and no dead letter could be kept: %s", task, ids, text, failed)
