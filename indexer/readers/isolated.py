"""Reads files in a process of its own, with limits of time and memory, so that no file can stop or end an ingestion.

The process is started for the first file and used for all. One that reads too long, takes too much memory or crashes is
ended, its file is rejected, and the next file gets a new process. Requests and results are JSON: a number of bytes,
then the bytes.
"""

from __future__ import annotations

import os
import selectors
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, cast

import orjson

from hyblink.app.core.errors import InvalidInputError, TooLargeError, UserError
from hyblink.app.core.process import module_command, module_environment
from hyblink.app.core.types.documents import Section
from hyblink.indexer.readers.encodings import told_encodings
from hyblink.indexer.readers.format import Member, Unpack, WholeFile
from hyblink.indexer.readers.rows import read_bounded

_LENGTH = struct.Struct("<Q")
_STARTING_S = 60.0
"""A new process may need so long to start, on a machine with much else to do."""
_CHUNK = 1 << 20
_OUT_OF_MEMORY = 12
Whole = Callable[[bytes], WholeFile]


class _Ended(Exception):  # noqa: N818
    """The process ended, or did not answer in time."""


class IsolatedReader:
    """Reads files with the `whole` functions of formats. Use it as a context manager.

    `seconds` and `memory` (bytes) are the limits of one file, `max_bytes` that of its unpacked size.
    """

    def __init__(
        self, *, seconds: float, memory: int, max_bytes: int, environment: Mapping[str, str] | None = None
    ) -> None:
        """`environment`: variables of the process beside those of this one."""
        self._environment = environment or {}
        self._seconds = seconds
        self._memory = memory
        self._max_bytes = max_bytes
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        for stream in (process.stdin, process.stdout):
            assert stream is not None
            with suppress(OSError):
                stream.close()
        process.wait()

    def read(self, path: Path, whole: Whole, encoding: str | None = None) -> tuple[WholeFile, list[str]]:
        """(the document, the names of encodings that were guessed) of a file.

        Raises UserError if it cannot be read, not in time, or not in this memory.
        """
        answer = self._asked(path, whole, encoding=encoding)
        if answer is None:  # a function that only this process has
            with told_encodings(encoding) as guesses:
                return whole(read_bounded(path, self._max_bytes)), guesses
        sections = tuple(Section(start, tuple(path), place) for start, path, place in answer["sections"])
        return WholeFile(answer["title"], answer["text"], answer["metadata"], sections), answer["guesses"]

    def unpack(self, path: Path, how: Unpack, folder: Path) -> list[Member]:
        """The files that a file holds, written to `folder`. Raises UserError if it cannot be unpacked, as `read`."""
        answer = self._asked(path, how, folder=os.fsencode(folder).hex())
        if answer is None:
            return list(how(path, folder))
        return [Member(*member) for member in answer["members"]]

    def _asked(self, path: Path, do: Whole | Unpack, **more: object) -> dict[str, Any] | None:
        """The answer of the process; None if it does not have the function `do`."""
        request = {
            "path": os.fsencode(path).hex(), "module": do.__module__, "name": do.__qualname__,
            "max_bytes": self._max_bytes, **more,
        }  # fmt: skip
        try:
            process = self._started()
            _send(process.stdin, orjson.dumps(request))
            answer = orjson.loads(_received(process, self._seconds))
        except TimeoutError:
            self.close()
            raise InvalidInputError(
                "the file takes too long to read", expected=f"at most {self._seconds:g} s (ingest.file_time_limit_s)"
            ) from None
        except (_Ended, OSError, ValueError) as failure:
            status = None if self._process is None else self._process.poll()
            self.close()
            raise InvalidInputError(
                f"the file ended the process that read it ({_said(status)})",
                expected=f"a file that can be read in {self._memory} bytes (ingest.file_memory_bytes)",
            ) from failure
        if "unfound" in answer:
            return None
        if "error" in answer:
            raise _error(answer["error"])
        return cast("dict[str, Any]", answer)

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            self._process = subprocess.Popen(
                module_command("hyblink.indexer.readers.isolated"), env={**module_environment(), **self._environment},
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            _send(self._process.stdin, orjson.dumps({"path": sys.path, "memory": self._memory}))
            _received(self._process, _STARTING_S)
        return self._process


def _said(status: int | None) -> str:
    if status == _OUT_OF_MEMORY:
        return "out of memory"
    return "no exit status" if status is None else f"signal {-status}" if status < 0 else f"exit status {status}"


def _error(told: dict[str, Any]) -> UserError:
    kind = TooLargeError if told["code"] == TooLargeError.code else InvalidInputError
    error = kind(told["message"], expected=told["expected"])
    error.received = told["received"]
    return error


def _send(stream: IO[bytes] | None, body: bytes) -> None:
    assert stream is not None
    stream.write(_LENGTH.pack(len(body)) + body)
    stream.flush()


def _received(process: subprocess.Popen[bytes], seconds: float) -> bytes:
    """The next message. Raises TimeoutError, or _Ended if the process ends before it."""
    assert process.stdout is not None
    until = time.monotonic() + seconds
    data = bytearray()
    wanted = _LENGTH.size
    length: int | None = None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while len(data) < wanted:
            if not selector.select(max(0.0, until - time.monotonic())):
                raise TimeoutError
            chunk = os.read(process.stdout.fileno(), min(_CHUNK, wanted - len(data)))
            if not chunk:
                process.wait(10)
                raise _Ended
            data += chunk
            if length is None and len(data) == _LENGTH.size:
                (length,) = _LENGTH.unpack(data)
                data.clear()
                wanted = length
    return bytes(data)


def _serve() -> None:
    """Read files until the standard input ends. Runs in the process of its own."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer
    told = orjson.loads(_next(requests) or b"{}")
    sys.path[:] = told["path"]
    with suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (told["memory"], told["memory"]))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _send(answers, b"{}")
    while (body := _next(requests)) is not None:
        _send(answers, _answered(orjson.loads(body)))


def _next(requests: IO[bytes]) -> bytes | None:
    head = requests.read(_LENGTH.size)
    return requests.read(_LENGTH.unpack(head)[0]) if len(head) == _LENGTH.size else None


def _answered(request: dict[str, Any]) -> bytes:
    try:
        do: Any = import_module(request["module"])
        for name in request["name"].split("."):
            do = getattr(do, name)
    except (ImportError, AttributeError):
        return orjson.dumps({"unfound": True})
    try:
        path = Path(os.fsdecode(bytes.fromhex(request["path"])))
        if "folder" in request:
            members = do(path, Path(os.fsdecode(bytes.fromhex(request["folder"]))))
            return orjson.dumps({"members": [_storable([one.name, one.file, one.error]) for one in members]})
        with told_encodings(request["encoding"]) as guesses:
            found: WholeFile = do(read_bounded(path, request["max_bytes"]))
        answer: dict[str, Any] = {
            "title": found.title,
            "text": found.text,
            "metadata": found.metadata,
            "sections": [(one.start, one.path, one.place) for one in found.sections],
            "guesses": guesses,
        }
        try:
            return orjson.dumps(answer)
        except TypeError:  # single surrogates, or a number over 64 bits
            return orjson.dumps(_storable(answer))
    except UserError as error:
        told = {
            "code": error.code, "message": error.message, "received": error.received, "expected": error.expected
        }  # fmt: skip
        return orjson.dumps({"error": told})
    except MemoryError:
        os._exit(_OUT_OF_MEMORY)  # it may not be able to say anything any more
    except Exception as error:  # noqa: BLE001  # libraries may raise anything on a broken file: it is rejected with that
        message = f"the file cannot be read: {type(error).__name__}: {error}".encode("utf-8", "replace").decode()
        told = {"code": "invalid_input", "message": message[:500], "received": None, "expected": "a readable file"}
        return orjson.dumps({"error": told})


def _storable(value: Any) -> Any:
    """A value with what JSON in UTF-8 cannot hold replaced: single surrogates, integers over 64 bits."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_storable(key): _storable(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_storable(inner) for inner in value]
    return str(value) if isinstance(value, int) and value.bit_length() > 63 else value


if __name__ == "__main__":
    _serve()
