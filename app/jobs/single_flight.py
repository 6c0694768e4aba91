"""A lock between processes: a lease in a record, renewed while it is held, and void once its holder has died."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from hyblink.app.core.errors import ConflictError, HyblinkError
from hyblink.app.core.ports.jobs import Record, Records
from hyblink.app.core.process import has_died, new_owner

_KIND = "lease"
_LEASE_S = 60.0
_not_given_back: set[str] = set()
"""Leases of this process that ended and that a full disk, say, kept it from giving back. It may take them again."""
log = logging.getLogger(__name__)


class UnderWayError(ConflictError):
    """Raised when another process holds the lease."""

    code = "under_way"


@contextmanager
def single_flight(records: Records, name: str, what: str) -> Iterator[None]:
    """Hold the lease `name`. Raises UnderWayError with the message "`what` already" if another process holds it."""
    owner = new_owner()
    found = records.get(_KIND, name)
    if found is not None and found.body["until"] > records.time() and not _ended(found.body["owner"]):
        raise UnderWayError(f"{what} already", received=name, expected="one at a time")

    def held(version: int, until: float) -> Record:
        return records.put(Record(_KIND, name, {"owner": owner, "until": until}, version=version))

    try:
        mine = held(found.version if found else 0, records.time() + _LEASE_S)
    except ConflictError:
        raise UnderWayError(f"{what} already", received=name, expected="one at a time") from None
    ended = threading.Event()

    def renew() -> None:
        nonlocal mine
        while not ended.wait(_LEASE_S / 3):
            try:
                mine = held(mine.version, records.time() + _LEASE_S)
            except HyblinkError as error:
                log.warning("the lease of %s could not be renewed: %s", name, error)

    renewing = threading.Thread(target=renew, name="hyblink-lease", daemon=True)
    renewing.start()
    try:
        yield
    finally:
        ended.set()
        renewing.join()
        try:
            held(mine.version, 0.0)
        except HyblinkError as error:
            _not_given_back.add(owner)
            log.warning("the lease of %s could not be given back, it will run out: %s", name, error)


def _ended(owner: str) -> bool:
    return owner in _not_given_back or has_died(owner)
