"""Commands that only read ask the service that runs on the same data folder: its models are loaded already.

`hyblink serve` listens on a Unix socket in the data folder. Only its own user may connect (mode 600). A command sends
its name, its arguments and a digest of each section of its settings. The service runs the same function and sends
back what it prints. Each message is one line of JSON.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import typer

from hyblink.app.cli.console import emit_text, note, say, served_by

if TYPE_CHECKING:
    import socket

    from hyblink.app.core.settings import Settings

NAME = "service.sock"
PROTOCOL = 1
_LONGEST_PATH = 100
"""Bytes of a socket's path that every system takes."""
_CONNECT_S = 2.0
_OTHER_SECTIONS = {"api", "oidc", "jobs", "log_level", "log_format"}
"""Settings that do not change what a reading command prints."""

COMMANDS: dict[str, Callable[..., None]] = {}
_Command = TypeVar("_Command", bound=Callable[..., None])


def reads(command: _Command) -> _Command:
    """Declares that a command only reads: where a service runs on the data folder, the service answers it.

    Its arguments are values that JSON has.
    """
    name = f"{command.__module__}.{command.__qualname__}"
    COMMANDS[name] = command

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
    import socket

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
    request = {"protocol": PROTOCOL, "command": name, "arguments": arguments, "settings": digests(settings)}
    try:
        connection = connected(path)
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


def digests(settings: Settings) -> dict[str, str]:
    """A digest of each section of the settings that has a say in answers."""
    import hashlib

    values = settings.model_dump(mode="json", exclude=_OTHER_SECTIONS)
    values["data_dir"] = str(settings.data_dir.resolve())
    return {
        name: hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
        for name, value in values.items()
    }


@contextmanager
def address(path: Path) -> Iterator[str]:
    """A path for `bind` and `connect`: longer ones than a socket may have go by way of an open folder (Linux)."""
    if len(os.fsencode(path)) <= _LONGEST_PATH:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def connected(path: Path) -> socket.socket:
    import socket

    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(_CONNECT_S)
    try:
        with address(path) as at:
            connection.connect(at)
    except BaseException:
        connection.close()
        raise
    return connection
