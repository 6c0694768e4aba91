"""What an API process does beside answering: load models before they are asked, and sweep where there is no broker."""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool

from hyblink.app.analysis.compiled import compile_from_now_on
from hyblink.app.application import App
from hyblink.app.core.errors import HyblinkError
from hyblink.app.jobs.celery_jobs import uses_celery
from hyblink.app.operations.maintenance import sweep

log = logging.getLogger(__name__)
_STORE_WAIT_S = 2.0


class WarmUp:
    """Loads what searches and links need. `done` is set when it has, or could not."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._stopped = threading.Event()
        self.done = threading.Event()

    def lifespan(self) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
        """Runs it while an API is up."""

        @asynccontextmanager
        async def lifespan(_: FastAPI) -> AsyncIterator[None]:
            beginning = threading.Thread(target=self._begin, name="hyblink-warm", daemon=True)
            beginning.start()
            sweeping = threading.Thread(target=self._sweep, name="hyblink-sweep", daemon=True)
            if not uses_celery(self._app.settings):
                sweeping.start()
            yield
            self._stopped.set()
            if sweeping.is_alive():
                await run_in_threadpool(sweeping.join)

        return lifespan

    def _begin(self) -> None:
        """Readiness waits for this, so that no first query does. A store that is away is waited for."""
        app, settings = self._app, self._app.settings
        try:
            while not self._stopped.is_set():
                try:
                    names = app.catalog.names()
                except HyblinkError as error:
                    log.warning("the store does not answer yet: %s", error)
                    self._stopped.wait(_STORE_WAIT_S)
                    continue
                compile_from_now_on()
                _tried(lambda: sweep(app), "what an earlier process left undone waits")
                for name in names:
                    self._load(name)
                if settings.search.rerank:
                    _tried(lambda: app.encoders.cross().load(), "searches are not re-ranked")
                if settings.link.rerank and any(app.catalog.spec(name).kind == "entities" for name in names):
                    _tried(lambda: app.encoders.entity_cross().load(), "links are decided without a cross-encoder")
                break
        finally:
            self.done.set()

    def _load(self, name: str) -> None:
        """Load a collection's encoders before they are asked."""
        try:
            record = self._app.catalog.engine(name).record
            self._app.encoders.bag(record.vdr_encoder).encode_query("warm up")
            if record.dense_dimension:
                self._app.encoders.full(record).encode_query("warm up")
        except HyblinkError as error:
            log.error("collection %s: %s", name, error)  # the others are served; /readyz tells

    def _sweep(self) -> None:
        """What a worker with --beat does, where there is no broker."""
        while not self._stopped.wait(self._app.settings.jobs.sweep_s):
            _tried(lambda: sweep(self._app), "what is to be done again waits")


def _tried(what: Callable[[], object], without: str) -> None:
    try:
        what()
    except HyblinkError as error:
        log.warning("%s: %s", without, error)  # each answer says so
