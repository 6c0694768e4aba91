"""Worker processes that the API server and the demo start themselves."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

from hyblink.app.core.process import module_command, module_environment
from hyblink.app.core.settings import Settings
from hyblink.app.jobs.celery_jobs import uses_celery

GRACE_S = 15.0
_NICE = 5
log = logging.getLogger(__name__)


class LocalWorkers:
    """A context manager that runs `jobs.workers` worker processes, and restarts those that end.

    It runs none if no broker is configured. `quiet` sets the workers' log level to WARNING. At the end they have
    `grace_s` seconds to finish what they have begun.
    """

    def __init__(self, settings: Settings, *, quiet: bool = False, grace_s: float = GRACE_S) -> None:
        self._grace_s = grace_s
        self._count = settings.jobs.workers if uses_celery(settings) else 0
        self._environment = {**os.environ, "HYBLINK_DATA_DIR": str(settings.data_dir.resolve())}
        if quiet:
            self._environment["HYBLINK_LOG_LEVEL"] = "WARNING"
        self._processes: list[subprocess.Popen[bytes] | None] = [None] * self._count
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="hyblink-workers", daemon=True)

    def __enter__(self) -> Self:
        for at in range(self._count):
            self._processes[at] = self._start(at)
        self._thread.start()
        return self

    def _start(self, at: int) -> subprocess.Popen[bytes]:
        beat = ["--beat"] if at == 0 else []
        command = module_command("hyblink", "worker", "--until-eof", *beat)
        environment = module_environment(self._environment)
        process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, start_new_session=True)
        if hasattr(os, "setpriority"):
            with suppress(OSError):  # people who search go before work in the background
                os.setpriority(os.PRIO_PROCESS, process.pid, os.getpriority(os.PRIO_PROCESS, 0) + _NICE)
        return process

    def _watch(self) -> None:
        while not self._ended.wait(2):
            for at, process in enumerate(self._processes):
                if process is not None and process.poll() is not None:
                    log.error("a worker ended with status %s and is started again", process.returncode)
                    self._processes[at] = self._start(at)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        for process in self._processes:
            if process is not None:
                process.terminate()
        for process in self._processes:
            if process is None:
                continue
            try:
                process.communicate(timeout=self._grace_s)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)  # the sweep queues its unfinished work again
                process.communicate()
