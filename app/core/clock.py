"""Time stamps for records, and ids that sort by creation time."""

from __future__ import annotations

import datetime as dt
import secrets


def now() -> str:
    """The current time in UTC as an ISO 8601 string, to the second."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")


def sortable_id(prefix: str) -> str:
    """A new unique id: the prefix, the current time in UTC to the microsecond, and a random suffix."""
    return f"{prefix}{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%S%f}-{secrets.token_hex(3)}"


def oldest_id(prefix: str, keep_days: float) -> str:
    """The lower bound of ids that `sortable_id(prefix)` made in the last `keep_days` days."""
    return f"{prefix}{dt.datetime.now(dt.UTC) - dt.timedelta(days=keep_days):%Y%m%dT%H%M%S}"
