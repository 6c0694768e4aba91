"""Commands that only read, answered by the service that runs on the same data folder: its models are loaded already.

`hyblink serve` listens on a Unix socket in the data folder. Only its own user may connect (mode 600). A command sends
its name, its arguments and a digest of each section of its settings. The service runs the same function and sends
back what it prints. Each message is one line of JSON.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import json
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

import typer

from hyblink.app.cli.console import Served, emit_text, note, say, served_by

if TYPE_CHECKING:
    from hyblink.app.application import App
    from hyblink.app.core.settings import Settings

log = logging.getLogger(__name__)

NAME = "service.sock"
PROTOCOL = 1
_LONGEST_PATH = 100
"""Bytes of a socket's path that every system takes."""
_AT_ONCE = 8
_LONGEST_REQUEST = 64 * 2**20
_CONNECT_S = 2.0
_OTHER_SECTIONS = {"api", "oidc", "jobs", "log_level", "log_format"}
"""Settings that do not change what a reading command prints."""

_MODULES = f"{__package__}."
_COMMANDS: dict[str, Callable[..., None]] = {}
_Command = TypeVar("_Command", bound=Callable[..., None])


def reads(command: _Command) -> _Command:
    """Declares that a command only reads: where a service runs on the data folder, the service answers it.

    Its arguments are values that JSON has.
    """
    name = f"{command.__module__}.{command.__qualname__}"
    _COMMANDS[name] = command

    @functools.wraps(command)
    def run(**arguments: Any) -> None:
        status = _asked(name, arguments)
        if status is None:
            command(**arguments)
        elif status:
            raise typer.Exit(status)

    return cast("_Command", run)


def _asked(name: str, arguments: dict[str, Any]) -> int | None:
    """What the service made of the command, as an exit status; None where this process has to run it."""
    if served_by() is not None:
        return None
    from hyblink.app.core.settings import Settings

    try:
        settings = Settings()
    except ValueError:
        return None  # the command says what is wrong with them
    if not settings.api.local_socket or not hasattr(socket, "AF_UNIX"):
        return None
    path = settings.data_dir / NAME
    if not path.exists():
        return None
    request = {"protocol": PROTOCOL, "command": name, "arguments": arguments, "settings": _digests(settings)}
    try:
        connection = _connected(path)
    except OSError:
        return None  # nobody listens any more
    with connection, connection.makefile("rwb") as stream:
        connection.settimeout(None)
        return _exchange(stream, request, settings.data_dir)


def _exchange(stream: Any, request: dict[str, Any], folder: Path) -> int | None:
    """Send a request and print what comes back; the exit status, or None where the service does not take it."""
    begun = False
    messages = _messages(stream, request)
    for message in messages:
        if "process" in message:
            begun = True
            note(f"answered by the service on {folder} (process {message['process']})")
        elif "refused" in message:
            note(f"the service on {folder} does not answer this ({message['refused']}); this process does")
            return None
        elif "out" in message:
            say(message["out"])
        elif "json" in message:
            emit_text(message["json"])
        elif "err" in message:
            note(message["err"])
        elif "exit" in message:
            return int(message["exit"])
    if not begun:
        return None
    note(f"error (unavailable): the service on {folder} ended before its answer was complete")
    return 1


def _messages(stream: Any, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The service's messages, to their end or to where the connection breaks."""
    with suppress(OSError, ValueError):
        stream.write(json.dumps(request).encode() + b"\n")
        stream.flush()
        for line in stream:
            yield json.loads(line)


def _digests(settings: Settings) -> dict[str, str]:
    """A digest of each section of the settings that has a say in answers."""
    values = settings.model_dump(mode="json", exclude=_OTHER_SECTIONS)
    values["data_dir"] = str(settings.data_dir.resolve())
    return {
        name: hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
        for name, value in values.items()
    }


@contextmanager
def _address(path: Path) -> Iterator[str]:
    """A path for `bind` and `connect`: longer ones than a socket may have go by way of an open folder (Linux)."""
    if len(os.fsencode(path)) <= _LONGEST_PATH:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _connected(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(_CONNECT_S)
    try:
        with _address(path) as address:
            connection.connect(address)
    except BaseException:
        connection.close()
        raise
    return connection


def _answers(path: Path) -> bool:
    try:
        _connected(path).close()
    except OSError:
        return False
    return True


def _command(name: object) -> Callable[..., None] | None:
    """A command that has been declared to read, by its module and name."""
    module, _, _ = str(name).rpartition(".")
    if module.startswith(_MODULES):
        with suppress(ImportError):
            importlib.import_module(module)
    return _COMMANDS.get(str(name))


class LocalService:
    """Listens on the socket while it is entered. Where it cannot, it logs why, and commands do their own work."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._path = app.settings.data_dir / NAME
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
            with _address(fresh) as address:
                listening.bind(address)
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
            sending = threading.Lock()

            def send(**message: object) -> None:
                with sending:
                    stream.write(json.dumps(message).encode() + b"\n")
                    stream.flush()

            line = stream.readline(_LONGEST_REQUEST)
            request = json.loads(line)
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
        mine, theirs = _digests(self._app.settings), request.get("settings") or {}
        differing = sorted(name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name))
        return f"its settings differ: {', '.join(differing)}" if differing else ""

    def _run(self, request: dict[str, Any], send: Callable[..., None]) -> int:
        with Served(self._app, send).bound():
            try:
                _COMMANDS[request["command"]](**request["arguments"])
            except typer.Exit as ended:
                return int(ended.exit_code)
            except Exception as error:
                log.exception("a command failed")
                send(err=f"error (internal): {type(error).__name__}; the service's log has more")
                return 1
        return 0
