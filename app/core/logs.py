"""Logging: one line per event, as text or JSON, with the id of the request that caused it."""

from __future__ import annotations

import contextvars
import datetime as dt
import logging
import re
import secrets

import orjson

request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="")
"""The id of the request that the current thread or task works for; empty outside a request."""
_GIVEN = re.compile(r"[\w.:-]{1,64}")


def new_request_id(given: str = "") -> str:
    """The caller's request id if it is 1 to 64 of letters, digits and `_.:-`; otherwise a new random one."""
    return given if _GIVEN.fullmatch(given) else secrets.token_hex(8)


class _WithRequest(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = request_id.get() or "-"
        return True


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "process": record.process,
            "request_id": request_id.get(),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode("utf-8", "replace")


def set_up(level: str | int, form: str = "text") -> None:
    """Send all log messages of at least `level` to standard error. `form` is `text` or `json`."""
    handler = logging.StreamHandler()
    handler.addFilter(_WithRequest())
    if form == "json":
        handler.setFormatter(_Json())
    else:
        handler.setFormatter(logging.Formatter("%(levelname)s %(name)s [%(request_id)s]: %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
