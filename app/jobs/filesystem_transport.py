"""A Celery broker in a folder: kombu's filesystem transport, made safe for several processes.

Kombu writes a message under its final name, so that a reader may see half of it, and a message that is not JSON ends
the worker. Here messages are written to a temporary file and renamed, unreadable messages are moved aside, and the
exchange tables are changed under a lock. As in kombu's own transport, messages that a killed worker had taken are lost;
their work is still in the store and is queued again.
"""

from __future__ import annotations

import logging
import os
import secrets
import time
from pathlib import Path
from queue import Empty
from typing import Any

import filelock
from kombu.transport import TRANSPORT_ALIASES, filesystem
from kombu.utils.json import dumps, loads

SCHEME = "hyblink-files"
_BROKEN = "broken"
log = logging.getLogger(__name__)


class Channel(filesystem.Channel):  # type: ignore[misc]
    """A channel whose messages are files in one folder, named `<time>-<random>.<queue>.msg`."""

    def _folder(self) -> Path:
        return Path(self.data_folder_in)

    def _lock(self) -> filelock.FileLock:
        return filelock.FileLock(Path(self.control_folder) / ".lock")

    def get_table(self, exchange: str) -> Any:
        with self._lock():
            return super().get_table(exchange)

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str, queue: str) -> None:
        with self._lock():
            super()._queue_bind(exchange, routing_key, pattern, queue)

    def _put(self, queue: str, payload: Any, **_: Any) -> None:
        name = f"{time.time_ns():020d}-{secrets.token_hex(4)}.{queue}.msg"
        beside = self._folder() / f".{name}"
        beside.write_text(dumps(payload), encoding="utf-8")
        beside.replace(self._folder() / name)

    def _get(self, queue: str) -> Any:
        for name in self._waiting(queue):
            taken = self._folder() / f".taken-{os.getpid()}-{name}"
            try:
                (self._folder() / name).rename(taken)
            except FileNotFoundError:
                continue  # another worker was faster
            try:
                payload = loads(taken.read_text(encoding="utf-8"))
                if not isinstance(payload, dict) or not isinstance(payload.get("properties"), dict):
                    raise ValueError("not a message")
            except ValueError as error:
                broken = self._folder() / _BROKEN
                broken.mkdir(exist_ok=True)
                taken.replace(broken / name)
                log.error("the message %s cannot be read and was set aside: %s", name, error)
                continue
            taken.unlink()
            return payload
        raise Empty

    def _waiting(self, queue: str) -> list[str]:
        end = f".{queue}.msg"
        return sorted(
            name
            for name in os.listdir(self._folder())
            if name.partition(".")[2] == end[1:] and not name.startswith(".")
        )

    def _size(self, queue: str) -> int:
        return len(self._waiting(queue))

    def _purge(self, queue: str) -> int:
        names = self._waiting(queue)
        for name in names:
            (self._folder() / name).unlink(missing_ok=True)
        return len(names)


class Transport(filesystem.Transport):  # type: ignore[misc]
    """Kombu's filesystem transport with the safe `Channel`."""

    Channel = Channel


TRANSPORT_ALIASES[SCHEME] = f"{__name__}:Transport"
