"""The audit log: every act that only administrators may do, and every attempt at one."""

from __future__ import annotations

import getpass
from dataclasses import asdict, dataclass

from hyblink.app.core.clock import now, sortable_id
from hyblink.app.core.ports.work import Record, Records

_KIND = "audit"


@dataclass(frozen=True, slots=True)
class Act:
    """Who did what, when, and how it ended (an HTTP status, or `done`)."""

    at: str
    by: str
    act: str
    outcome: str
    request_id: str = ""


class Audit:
    """Acts as records; nothing here deletes them."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def add(self, by: str, act: str, outcome: str, request_id: str = "") -> None:
        """Keep an act."""
        made = Act(now(), by, act[:500], outcome, request_id)
        self._records.put(Record(_KIND, sortable_id("a"), asdict(made)))

    def list(self, before: str | None = None, limit: int = 100) -> list[tuple[str, Act]]:
        """(id, act), the newest first."""
        return [(one.id, Act(**one.body)) for one in self._records.list(_KIND, before=before, limit=limit)]


def local_user() -> str:
    """Who acts at the command line."""
    try:
        return f"cli:{getpass.getuser()}"
    except (OSError, KeyError):
        return "cli"
