"""What carriers of tasks call: the same functions, whoever runs them."""

from __future__ import annotations

from collections.abc import Callable

from hyblink.app.application import App
from hyblink.app.operations.annotation import annotate_waiting
from hyblink.app.operations.encoding import encode_waiting
from hyblink.app.operations.jobs import run_job


class Tasks:
    """Tasks of one application; each stops when it is told to."""

    def __init__(self, app: App) -> None:
        self._app = app

    def encode_waiting(self, collection: str, generation: str, stop: Callable[[], bool]) -> None:
        """Encode what waits and nobody is at."""
        encode_waiting(self._app, collection, generation, stop)

    def annotate_waiting(self, collection: str, stop: Callable[[], bool]) -> None:
        """Annotate the documents that wait for it."""
        annotate_waiting(self._app, collection, stop)

    def run_job(self, job_id: str, stop: Callable[[], bool]) -> None:
        """Run a job for a slice of time."""
        run_job(self._app, job_id, stop)
