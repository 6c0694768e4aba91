"""Processes of their own for tests, started in milliseconds.

Importing torch and its companions takes seconds, and many tests start processes only to kill them. One process, started
once, imports what they need and then forks for each. The forked process is real: it has its own id, session, files and
end. `start` takes what `subprocess.Popen` takes of a Python command and returns what tests use of its result.
"""

from __future__ import annotations

import array
import atexit
import functools
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

_PRELOADED = (
    "numpy", "torch", "sentence_transformers", "transformers", "peft", "faiss", "tantivy", "numba", "celery",
    "kombu.transport.filesystem", "fastapi", "uvicorn", "hyblink.app.bootstrap", "hyblink.app.operations.tasks",
    "hyblink.training.run", "hyblink.training.recipes", "hyblink.app.encoders.families",
)  # fmt: skip
_START_S = 120.0
_DIGITS = 10
"""Bytes of the process id that is sent first."""


class Process:
    """A forked process, as far as tests use `subprocess.Popen`."""

    def __init__(self, connection: socket.socket, pid: int, out: int | None, err: int | None) -> None:
        self._connection = connection
        self.pid = pid
        self.returncode: int | None = None
        self.stdout: IO[str] | None = os.fdopen(out, encoding="utf-8") if out is not None else None
        self.stderr: IO[str] | None = os.fdopen(err, encoding="utf-8") if err is not None else None
        self._read: dict[int, str] = {}
        self._reading: list[threading.Thread] = []

    def poll(self) -> int | None:
        """Its exit status, or None while it runs."""
        return self._ended(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; its exit status, negative for a signal."""
        status = self._ended(timeout)
        if status is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
        return status

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """All that it prints, read while it runs. After TimeoutExpired it may be called again."""

        def drain(number: int, stream: IO[str] | None) -> None:
            self._read[number] = "" if stream is None else stream.read()

        if not self._reading:
            both = ((1, self.stdout), (2, self.stderr))
            self._reading = [threading.Thread(target=drain, args=pair, daemon=True) for pair in both]
            for thread in self._reading:
                thread.start()
        self.wait(timeout)
        for thread in self._reading:
            thread.join()
        self._close()
        return self._read[1], self._read[2]

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    terminate = functools.partialmethod(send_signal, signal.SIGTERM)
    kill = functools.partialmethod(send_signal, signal.SIGKILL)

    def _close(self) -> None:
        for stream in (self.stdout, self.stderr):
            if stream is not None:
                stream.close()

    def __del__(self) -> None:
        self._close()
        self._connection.close()

    def _ended(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._connection], [], [], timeout)[0]:
            told = self._connection.recv(64)
            self.returncode = int(told) if told else -signal.SIGKILL
            self._connection.close()
        return self.returncode


def start(
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: str | Path | None = None,
    stdout: int | IO[Any] | None = None,
    stderr: int | IO[Any] | None = None,
    start_new_session: bool = False,
) -> Process:
    """Run `[sys.executable, script, …]` or `[sys.executable, "-m", module, …]` in a forked process."""
    assert command[0] == sys.executable
    request = {
        "arguments": list(command[1:]),
        "environment": dict(os.environ if env is None else env),
        "folder": str(cwd or Path.cwd()),
        "session": start_new_session,
    }
    theirs, ours = [], []
    for given, number in ((stdout, 1), (stderr, 2)):
        mine = None
        if given == subprocess.PIPE:
            mine, other = os.pipe()
        elif given == subprocess.DEVNULL:
            other = os.open(os.devnull, os.O_WRONLY)
        elif given == subprocess.STDOUT:
            other = os.dup(theirs[0])
        else:
            other = os.dup(number if given is None else given if isinstance(given, int) else given.fileno())
        theirs.append(other)
        ours.append(mine)
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(_forker())
    body = json.dumps(request).encode()
    connection.sendmsg(
        [len(body).to_bytes(8, "big")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", theirs))]
    )
    connection.sendall(body)
    for other in theirs:
        os.close(other)
    return Process(connection, int(connection.recv(_DIGITS, socket.MSG_WAITALL)), *ours)


def run(command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """As `subprocess.run` with its output captured as text."""
    process = start(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
    out, err = process.communicate(timeout=600)
    assert process.returncode is not None
    return subprocess.CompletedProcess(list(command), process.returncode, out, err)


@functools.cache
def _forker() -> str:
    """The address of the process that forks; it ends with this one."""
    folder = tempfile.mkdtemp(prefix="hyblink-fork-")
    address = f"{folder}/socket"
    root = Path(__file__).parents[2]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HYBLINK_")}
    environment["PYTHONPATH"] = os.pathsep.join([str(root), str(root / "tests")])
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__)), address], env=environment, stdin=subprocess.PIPE, start_new_session=True
    )
    atexit.register(process.kill)
    deadline = time.monotonic() + _START_S
    while not Path(address).exists():
        assert process.poll() is None, "the process that forks has ended"
        assert time.monotonic() < deadline, "the process that forks did not start"
        time.sleep(0.05)
    return address


def _serve(address: str) -> None:
    """Fork for each request until standard input ends."""
    import importlib

    sys.path[0] = os.environ["PYTHONPATH"].split(os.pathsep)[0]
    for name in _PRELOADED:
        importlib.import_module(name)
    # OpenBLAS and jemalloc have threads already; both begin anew in a forked process.
    assert threading.active_count() == 1, "a process with threads must not fork"
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(address + ".new")
    listening.listen(64)
    Path(address + ".new").rename(address)
    running: dict[int, socket.socket] = {}
    while True:
        ready, _, _ = select.select([listening, reading, 0], [], [])
        if 0 in ready:
            return
        if reading in ready:
            os.read(reading, 4096)
        while running:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            with suppress(OSError), running.pop(pid) as connection:
                connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())
        if listening in ready:
            connection, _ = listening.accept()
            request, files = _received(connection)
            pid = os.fork()
            if not pid:
                for inherited in (listening, connection, *running.values()):
                    inherited.close()
                _become(request, files)
            for file in files:
                os.close(file)
            running[pid] = connection
            connection.sendall(f"{pid:{_DIGITS}}".encode())


def _received(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    head, files, _, _ = socket.recv_fds(connection, 8, 2)
    left, body = int.from_bytes(head, "big"), b""
    while len(body) < left:
        body += connection.recv(left - len(body))
    return json.loads(body), files


def _become(request: Mapping[str, Any], files: Sequence[int]) -> None:
    """Be the process that was asked for; never returns."""
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if request["session"]:
            os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, file in enumerate(files, start=1):
            os.dup2(file, number)
            os.close(file)
        for number in (1, 2):  # streams of the terminal that the new ones stand for
            setattr(sys, {1: "stdout", 2: "stderr"}[number], os.fdopen(number, "w", encoding="utf-8", closefd=False))
        os.environ.clear()
        os.environ.update(request["environment"])
        os.chdir(request["folder"])
        sys.path[:0] = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
        status = _run(request["arguments"])
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):
                stream.flush()
        os._exit(status)


def _run(arguments: Sequence[str]) -> int:
    try:
        if arguments[0] == "-m":
            sys.argv = list(arguments[1:])
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = list(arguments)
            sys.path.insert(0, str(Path(arguments[0]).parent))
            runpy.run_path(arguments[0], run_name="__main__")
        status = 0
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    return status


if __name__ == "__main__":
    _serve(sys.argv[1])
