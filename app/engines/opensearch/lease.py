"""One writer at a time, also between machines: a lease kept in a document that only its holder may change.

The document's fields: `owner` ("" where nobody holds it), `until` (seconds since 1970), `term` (moved by a
holder who shuts earlier ones out), `clean` (whether the last holder left nothing half-done).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from hyblink.app.core.errors import ConflictError, HyblinkError, NotFoundError, UnavailableError, WriterConflictError
from hyblink.app.core.process import has_died, new_owner
from hyblink.app.engines.opensearch.client import Json
from hyblink.app.engines.opensearch.state import StateDocuments, Versioned

_POLL_S = 0.05
log = logging.getLogger(__name__)

FREE: Json = {"owner": "", "until": 0.0, "term": 1, "clean": True}
"""What the document of a lease begins with."""


class Lease:
    """The right to change a document, and what the document protects. One thread at a time within a process."""

    def __init__(self, documents: StateDocuments, path: str, *, lease_s: float, wait_s: float) -> None:
        self._documents = documents
        self._path = path
        self._lease_s = lease_s
        self._wait_s = wait_s
        self._owner = new_owner()
        self._mutex = threading.RLock()
        self._depth = 0
        self._writing = threading.Lock()
        self._document: Versioned | None = None
        self._released = threading.Event()
        self.clean = True
        """Set to False by a holder who leaves something half-done; the next one is told so."""

    @contextmanager
    def held(self) -> Iterator[bool]:
        """Hold the lease; what is given says whether the holder before may have left something half-done.

        Re-entrant in a thread. Raises WriterConflictError where another holds it for too long.
        """
        if not self._mutex.acquire(timeout=self._wait_s):
            raise WriterConflictError("another thread is writing to this collection", expected="one writer at a time")
        try:
            self._depth += 1
            try:
                if self._depth > 1:
                    yield False
                    return
                unclean = self._take()
                renewing = threading.Thread(target=self._renew, daemon=True, name="hyblink-lease")
                renewing.start()
                try:
                    yield unclean
                finally:
                    self._released.set()
                    renewing.join()
                    self._give_back()
            finally:
                self._depth -= 1
        finally:
            self._mutex.release()

    def _take(self) -> bool:
        deadline = time.monotonic() + self._wait_s
        while True:
            found = self._documents.get_many([self._path])[self._path]
            if found is None:
                raise NotFoundError("the collection or generation has been deleted", received=self._path)
            held = found.value
            free = held["owner"] in {"", self._owner} or held["until"] < time.time() or has_died(held["owner"])
            if free:
                value = {**held, "owner": self._owner, "until": time.time() + self._lease_s}
                with suppress(ConflictError):
                    self._document = self._documents.put(self._path, {**value, "clean": False}, after=found)
                    self._released.clear()
                    self.clean = True
                    return not held["clean"]
            if time.monotonic() >= deadline:
                raise WriterConflictError(
                    f"another process is writing to this collection (waited {self._wait_s:g} s)",
                    received=f"writer {held['owner']}",
                    expected="one writer at a time; try again when it is done",
                )
            time.sleep(_POLL_S)

    def _renew(self) -> None:
        while not self._released.wait(self._lease_s / 3):
            try:
                self.update({})
            except ConflictError:
                return  # lost: the holder will hear of it when it commits
            except HyblinkError as error:
                log.warning("a writer's lease could not be renewed: %s", error)

    @property
    def value(self) -> Json:
        """The document as the holder knows it. Raises WriterConflictError where the lease has been lost."""
        document = self._document
        if document is None:
            raise WriterConflictError("the writer's lease has been lost", expected="a writer that holds it")
        return document.value

    def update(self, changes: Json) -> None:
        """Change the document. Raises WriterConflictError where the lease has been lost; then nothing is changed."""
        with self._writing:
            if self._document is None:
                raise WriterConflictError("the lease has been lost", expected="a writer that holds it")
            value = {**self._document.value, **changes, "until": time.time() + self._lease_s}
            try:
                self._document = self._documents.put(self._path, value, after=self._document)
            except ConflictError:
                # A renewal that seemed lost may have arrived late: then it is still this holder's.
                found = self._documents.get_many([self._path])[self._path]
                mine = self._document.value
                self._document = None
                if found and all(
                    found.value[name] == mine[name] for name in ("owner", "term", "change") if name in mine
                ):
                    with suppress(ConflictError):
                        self._document = self._documents.put(self._path, value, after=found)
                        return
                raise WriterConflictError(
                    "another process has taken over writing to this collection", expected="one writer at a time"
                ) from None
            except UnavailableError:
                # Whether it was written is not known: look, as soon as somebody answers.
                found = self._documents.get_many([self._path])[self._path]
                if found is None or found.value != value:
                    raise
                self._document = found

    def _give_back(self) -> None:
        with self._writing:
            held, self._document = self._document, None
            if held is None:
                return
            value = {**held.value, "owner": "", "until": 0.0, "clean": self.clean}
            try:
                self._documents.put(self._path, value, after=held)
            except HyblinkError as error:
                log.warning("a writer's lease could not be given back, it will run out: %s", error)
