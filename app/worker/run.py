"""A worker process from its start to its end."""

from __future__ import annotations

import logging
import os
import socket
import warnings
from typing import Any

from hyblink.app.bootstrap import build
from hyblink.app.core.settings import Settings
from hyblink.app.worker.presence import Presence
from hyblink.app.worker.tasks import worker_celery

log = logging.getLogger(__name__)


def run_worker(
    settings: Settings, queues: list[str], *, concurrency: int, beat: bool, pool: str = "prefork", name: str = ""
) -> int:
    """Work until told to stop (SIGTERM: after the tasks in hand); the exit status."""
    from celery import signals
    from celery.exceptions import SecurityWarning

    celery, mine = worker_celery(settings)

    def closed(**_: Any) -> None:
        mine.close()

    # The process that forks keeps its own records open in one thread; its children open theirs.
    here = build(settings)
    presence = Presence(here, queues, settings.encode.device)

    def ready(**_: Any) -> None:
        presence.start()
        log.info("worker ready: %s", ", ".join(queues))

    # It is about pickled messages from strangers: ours are JSON, and ids only.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    signals.worker_process_shutdown.connect(closed, weak=False)
    signals.worker_ready.connect(ready, weak=False)
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
