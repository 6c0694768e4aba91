"""The record by which a worker reports that it is alive."""

from __future__ import annotations

import logging
import os
import threading
from typing import Any

from hyblink.app.application import App
from hyblink.app.core.errors import HyblinkError
from hyblink.app.core.ports.jobs import Record
from hyblink.app.core.process import new_owner
from hyblink.app.jobs.job import WORKER

log = logging.getLogger(__name__)

BEAT_S = 10.0


class Presence:
    """A worker's record with its queues, device and process id, renewed every `BEAT_S` seconds by a thread."""

    def __init__(self, app: App, queues: list[str], device: str) -> None:
        self._records = app.catalog.records()
        self._id = new_owner()
        self._body: dict[str, Any] = {"queues": queues, "device": device, "pid": os.getpid()}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hyblink-presence", daemon=True)

    def start(self) -> None:
        """Write the record, and start to renew it."""
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                body = {**self._body, "seen": self._records.time()}
                self._records.add([Record(WORKER, self._id, body)])
            except HyblinkError as error:
                log.warning("the worker's record could not be renewed: %s", error)
            if self._ended.wait(BEAT_S):
                return

    def end(self) -> None:
        """Stop renewing the record, and delete it."""
        self._ended.set()
        self._thread.join(5)
        try:
            self._records.remove(WORKER, [self._id])
        except HyblinkError as error:
            log.warning("the worker's record could not be removed: %s", error)
