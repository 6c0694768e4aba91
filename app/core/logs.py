"""Logging: one line an event, as text or JSON, with the id of the request that it belongs to."""

from __future__ import annotations

import contextvars
import datetime as dt
import logging
import re
import secrets

import orjson

request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="")
"""The id of the request that this thread or task works for; "" where it is none."""
_GIVEN = re.compile(r"[\w.:-]{1,64}")


def new_request_id(given: str = "") -> str:
    """The caller's id where it is fit to stand in a log, otherwise a new one."""
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
    """Log to standard error from now on."""
    handler = logging.StreamHandler()
    handler.addFilter(_WithRequest())
    if form == "json":
        handler.setFormatter(_Json())
    else:
        handler.setFormatter(logging.Formatter("%(levelname)s %(name)s [%(request_id)s]: %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
