"""The writer's lease: a JSON document on the cluster that gives one writer, on any machine, the right to write.

The document's fields: `owner` (empty if free), `until` (expiry in seconds since 1970), `term` (a fencing number,
raised by a holder to lock out earlier writers), `clean` (False while a write may be incomplete).
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
"""The initial fields of a lease's document."""


class Lease:
    """A lease on the document at `path` and on the data that it protects.

    Within a process one thread at a time holds it. It expires after `lease_s` seconds without renewal, and `wait_s` is
    how long `held` waits for it.
    """

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
        """A holder sets this to False if it leaves an incomplete write, so that the next holder learns of it."""

    @contextmanager
    def held(self) -> Iterator[bool]:
        """Hold the lease and renew it in the background. Yields whether an earlier write may be incomplete.

        Reentrant within a thread. Raises WriterConflictError if the lease is not free within `wait_s` seconds,
        NotFoundError if its document is gone.
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
            free = (
                held["owner"] in {"", self._owner} or held["until"] < self._documents.time() or has_died(held["owner"])
            )
            if free:
                value = {**held, "owner": self._owner, "until": self._documents.time() + self._lease_s}
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
                return  # the lease is lost; the holder's next update raises
            except HyblinkError as error:
                log.warning("a writer's lease could not be renewed: %s", error)

    @property
    def value(self) -> Json:
        """The document as last read or written by this holder. Raises WriterConflictError if the lease is lost."""
        document = self._document
        if document is None:
            raise WriterConflictError("the writer's lease has been lost", expected="a writer that holds it")
        return document.value

    def update(self, changes: Json) -> None:
        """Change fields of the document and renew the lease.

        Raises WriterConflictError, without a change, if the lease is lost.
        """
        with self._writing:
            if self._document is None:
                raise WriterConflictError("the lease has been lost", expected="a writer that holds it")
            value = {**self._document.value, **changes, "until": self._documents.time() + self._lease_s}
            try:
                self._document = self._documents.put(self._path, value, after=self._document)
            except ConflictError:
                # The conflict may be with this holder's own renewal that arrived late. Then the lease is still held.
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
                # It is unknown whether the write succeeded: read the document to find out.
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
