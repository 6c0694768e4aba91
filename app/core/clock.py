"""The time as records keep it, and ids that sort by it."""

from __future__ import annotations

import datetime as dt
import secrets


def now() -> str:
    """The present moment, UTC, to the second."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")


def sortable_id(prefix: str) -> str:
    """An id that sorts by time: the prefix, the moment in UTC, and a random end."""
    return f"{prefix}{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%S%f}-{secrets.token_hex(3)}"


def oldest_id(prefix: str, keep_days: float) -> str:
    """What ids of `sortable_id` come after that are at most so old."""
    return f"{prefix}{dt.datetime.now(dt.UTC) - dt.timedelta(days=keep_days):%Y%m%dT%H%M%S}"
