"""The audit log: administrative actions, refused attempts included."""

from __future__ import annotations

import getpass
from dataclasses import asdict, dataclass

from hyblink.app.core.clock import now, oldest_id, sortable_id
from hyblink.app.core.ports.jobs import Record, Records, remove_older

_KIND = "audit"


@dataclass(frozen=True, slots=True)
class Act:
    """An entry of the audit log: user, action, time, and outcome (an HTTP status, an error code, or `done`)."""

    at: str
    by: str
    act: str
    outcome: str
    request_id: str = ""


class Audit:
    """The audit log, stored as records."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def add(self, by: str, act: str, outcome: str, request_id: str = "") -> None:
        """Add an entry with the current time. `act` is cut to 500 characters."""
        made = Act(now(), by, act[:500], outcome, request_id)
        self._records.put(Record(_KIND, sortable_id("a"), asdict(made)))

    def tidy(self, keep_days: float) -> int:
        """Delete entries older than `keep_days`; return how many."""
        return remove_older(self._records, _KIND, oldest_id("a", keep_days))

    def list(self, before: str | None = None, limit: int = 100) -> list[tuple[str, Act]]:
        """Return (id, entry) pairs, newest first. `before` is an id: only older entries are returned."""
        return [(item.id, Act(**item.body)) for item in self._records.list(_KIND, before=before, limit=limit)]


def local_user() -> str:
    """Return the name of the command line's user for the audit log, such as `cli:anna`."""
    try:
        return f"cli:{getpass.getuser()}"
    except (OSError, KeyError):
        return "cli"
