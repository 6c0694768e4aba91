"""The service's side of commands that only read: runs them in its own process and sends back what they print."""

from __future__ import annotations

import importlib
import json
import logging
import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import typer

from hyblink.app.application import App
from hyblink.app.cli.console import Served
from hyblink.app.cli.local_service import COMMANDS, NAME, PROTOCOL, address, connected, digests

log = logging.getLogger(__name__)

_AT_ONCE = 8
_LONGEST_REQUEST = 64 * 2**20
_MODULES = f"{__package__}."


def _answers(path: Path) -> bool:
    try:
        connected(path).close()
    except OSError:
        return False
    return True


def _command(name: object) -> Callable[..., None] | None:
    """A command that has been declared to read, by its module and name."""
    module, _, _ = str(name).rpartition(".")
    if module.startswith(_MODULES):
        with suppress(ImportError):
            importlib.import_module(module)
    return COMMANDS.get(str(name))


class LocalService:
    """Listens on the socket while it is entered. Where it cannot, it logs why, and commands do their own work."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._path = app.settings.data_dir / NAME
        self._digests = digests(app.settings)
        self._listening: socket.socket | None = None
        self._slots = threading.BoundedSemaphore(_AT_ONCE)

    def __enter__(self) -> Self:
        if self._app.settings.api.local_socket and hasattr(socket, "AF_UNIX"):
            try:
                self._listening = self._listen()
            except OSError as error:
                log.warning("commands cannot ask this service: %s: %s", self._path, error)
            else:
                threading.Thread(target=self._accept, name="hyblink-commands", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._listening is not None:
            with suppress(OSError):
                self._path.unlink()
            with suppress(OSError):
                self._listening.shutdown(socket.SHUT_RDWR)
            self._listening.close()

    def _listen(self) -> socket.socket:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if _answers(self._path):
            raise FileExistsError("another service on this data folder answers there")
        fresh = self._path.with_name(f".{NAME}-{os.getpid()}")
        fresh.unlink(missing_ok=True)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            os.fchmod(listening.fileno(), 0o600)
            with address(fresh) as at:
                listening.bind(at)
            fresh.chmod(0o600)
            listening.listen(_AT_ONCE)
            fresh.replace(self._path)  # under its name it has its mode from the beginning
        except BaseException:
            listening.close()
            fresh.unlink(missing_ok=True)
            raise
        return listening

    def _accept(self) -> None:
        assert self._listening is not None
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return  # closed
            threading.Thread(target=self._answer, args=(connection,), name="hyblink-command", daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rwb") as stream, suppress(OSError, ValueError):

            def send(**message: object) -> None:
                stream.write(json.dumps(message).encode() + b"\n")
                stream.flush()

            request = json.loads(stream.readline(_LONGEST_REQUEST))
            refused = self._refusal(request) if isinstance(request, dict) else "no request"
            if refused:
                send(refused=refused)
                return
            send(process=os.getpid())
            with self._slots:
                send(exit=self._run(request, send))

    def _refusal(self, request: dict[str, Any]) -> str:
        """Why a command has to do its own work; empty where it need not."""
        if request.get("protocol") != PROTOCOL or _command(request.get("command")) is None:
            return "another version of hyblink"
        mine, theirs = self._digests, request.get("settings") or {}
        differing = sorted(name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name))
        return f"its settings differ: {', '.join(differing)}" if differing else ""

    def _run(self, request: dict[str, Any], send: Callable[..., None]) -> int:
        with Served(self._app, send).bound():
            try:
                COMMANDS[request["command"]](**request["arguments"])
            except typer.Exit as ended:
                return int(ended.exit_code)
            except Exception as error:
                log.exception("a command failed")
                send(err=f"error (internal): {type(error).__name__}; the service's log has more")
                return 1
        return 0
