"""The functions behind background tasks. In-process threads and Celery workers call the same ones."""

from __future__ import annotations

from collections.abc import Callable

from hyblink.app.application import App
from hyblink.app.operations.annotation import annotate_waiting
from hyblink.app.operations.encoding import encode_waiting
from hyblink.app.operations.jobs import run_job


class Tasks:
    """The background tasks of one application. Each returns early once `stop()` is true."""

    def __init__(self, app: App) -> None:
        self._app = app

    def encode_waiting(self, collection: str, generation: str, stop: Callable[[], bool]) -> None:
        """Encode the passages without a vector that no other process has claimed."""
        encode_waiting(self._app, collection, generation, stop)

    def annotate_waiting(self, collection: str, stop: Callable[[], bool]) -> None:
        """Annotate the documents that are not annotated yet."""
        annotate_waiting(self._app, collection, stop)

    def run_job(self, job_id: str, stop: Callable[[], bool]) -> None:
        """Run a job for one time slice."""
        run_job(self._app, job_id, stop)
