"""Background threads of an API process: load the models at the start, and run sweeps if there is no broker."""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool

from hyblink.app.analysis.compiled import compile_from_now_on
from hyblink.app.application import App
from hyblink.app.core.errors import HyblinkError
from hyblink.app.jobs.celery_jobs import uses_celery
from hyblink.app.operations.collections import vector_problems
from hyblink.app.operations.maintenance import sweep

log = logging.getLogger(__name__)
_STORE_WAIT_S = 2.0
_LOOK_S = 0.2


class WarmUp:
    """Loads the models that searches and links need. `done` is set when it has finished, successfully or not."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._stopped = threading.Event()
        self.done = threading.Event()

    def lifespan(self) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
        """Return a FastAPI lifespan that runs the threads while the API is up."""

        @asynccontextmanager
        async def lifespan(_: FastAPI) -> AsyncIterator[None]:
            beginning = threading.Thread(target=self._begin, name="hyblink-warm", daemon=True)
            beginning.start()
            checking = threading.Thread(target=self._check, name="hyblink-check", daemon=True)
            checking.start()
            sweeping = threading.Thread(target=self._sweep, name="hyblink-sweep", daemon=True)
            if not uses_celery(self._app.settings):
                sweeping.start()
            yield
            self._stopped.set()
            for thread in (checking, sweeping):
                if thread.is_alive():
                    await run_in_threadpool(thread.join)

        return lifespan

    def _begin(self) -> None:
        """Queue unfinished work and load the models; wait for the store if it does not answer yet.

        /readyz reports ready only afterwards, so that no query has to wait for loading.
        """
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
        """Load a collection's encoders by encoding a query."""
        try:
            record = self._app.catalog.engine(name).record
            self._app.encoders.bag(record.vdr_encoder).encode_query("warm up")
            if record.dense_dimension:
                self._app.encoders.hybrid_encoder(record).encode_query("warm up")
        except HyblinkError as error:
            log.error("collection %s: %s", name, error)  # other collections are served; /readyz reports this one

    def _check(self) -> None:
        """Say which collections have vectors of another precision. Nobody waits for it."""
        while not self.done.wait(_LOOK_S):
            if self._stopped.is_set():
                return
        names: list[str] = []
        _tried(lambda: names.extend(self._app.catalog.names()), "vectors are not checked")
        for name in names:
            if self._stopped.is_set():
                return
            _tried(partial(self._check_one, name), f"the vectors of {name} are not checked")

    def _check_one(self, name: str) -> None:
        engine = self._app.catalog.engine(name)
        for problem in vector_problems(self._app, engine) if engine.record.dense_dimension else ():
            log.warning("collection %s: %s", name, problem)

    def _sweep(self) -> None:
        """Run the periodic sweep, which a worker with --beat does if there is a broker."""
        while not self._stopped.wait(self._app.settings.jobs.sweep_s):
            _tried(lambda: sweep(self._app), "what is to be done again waits")


def _tried(what: Callable[[], object], without: str) -> None:
    try:
        what()
    except HyblinkError as error:
        log.warning("%s: %s", without, error)  # responses report it too
