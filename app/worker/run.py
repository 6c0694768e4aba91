"""Run a worker process."""

from __future__ import annotations

import logging
import multiprocessing
import os
import socket
import warnings
from typing import Any

from hyblink.app.bootstrap import build
from hyblink.app.core.private import write_private_files
from hyblink.app.core.settings import Settings
from hyblink.app.worker.presence import Presence
from hyblink.app.worker.tasks import worker_celery

log = logging.getLogger(__name__)


def run_worker(
    settings: Settings, queues: list[str], *, concurrency: int, beat: bool, pool: str = "prefork", name: str = ""
) -> int:
    """Run a Celery worker until it is stopped; return its exit status. SIGTERM stops it after its current tasks."""
    from celery import signals

    if settings.private_data:
        write_private_files()
    from celery.exceptions import SecurityWarning

    # The worker's forked processes share it. It has no lock, so that a signal handler can set it at any moment.
    ending = multiprocessing.RawValue("b", 0)
    celery, mine = worker_celery(settings, lambda: bool(ending.value))

    def stopping(**_: Any) -> None:
        ending.value = 1

    def closed(**_: Any) -> None:
        mine.close()

    # The parent process uses this application for its presence record only. Forked children build their own.
    here = build(settings)
    presence = Presence(here, queues, settings.encode.device)

    def ready(**_: Any) -> None:
        presence.start()
        log.info("worker ready: %s", ", ".join(queues))

    # The warning is about pickled messages. Our messages are JSON and contain only ids.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    signals.worker_process_shutdown.connect(closed, weak=False)
    signals.worker_ready.connect(ready, weak=False)
    signals.worker_shutting_down.connect(stopping, weak=False)
    worker = celery.Worker(
        queues=queues,
        concurrency=concurrency,
        pool=pool,
        beat=beat,
        hostname=name or f"hyblink-{os.getpid()}@{socket.gethostname()}",
        loglevel=settings.log_level,
        quiet=True,
        without_gossip=True,
        without_mingle=True,
    )
    try:
        worker.start()
    finally:
        presence.end()
        mine.close()
        here.close()
    return int(worker.exitcode or 0)
