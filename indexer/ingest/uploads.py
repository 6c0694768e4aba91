"""Stores uploaded files for ingestion. Each upload is one folder that appears only when the file is complete."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from hyblink.app.core.clock import sortable_id
from hyblink.app.core.errors import InvalidInputError, NotFoundError, StorageFullError, TooLargeError
from hyblink.app.core.manifest import read_json, write_json
from hyblink.indexer.readers.formats import detect_format

_ID = re.compile(r"u\d{8}T\d{12}-[0-9a-f]{6}")
_META, _OLD_META = ".upload.json", "upload.json"
_LONGEST_NAME_BYTES = 200
_DAY = 86_400


@dataclass(frozen=True, slots=True)
class Upload:
    """A stored upload: its id, original file name, size in bytes and SHA-256."""

    id: str
    name: str
    bytes: int
    sha256: str


class _Incoming:
    """An upload in progress, written to a hidden folder that `finish` renames."""

    def __init__(self, upload: str, name: str, by: str, most: int, out: BinaryIO, beside: Path, root: Path) -> None:
        self._upload, self._name, self._by, self._most, self._out = upload, name, by, most, out
        self._beside, self._root = beside, root
        self._digest, self._size = hashlib.sha256(), 0

    def add(self, chunk: bytes) -> None:
        self._size += len(chunk)
        if self._size > self._most:
            raise TooLargeError(
                "the upload is too large", received=f"over {self._size}", expected=f"at most {self._most} bytes"
            )
        self._digest.update(chunk)
        self._out.write(chunk)

    def finish(self) -> Upload:
        self._out.flush()
        os.fsync(self._out.fileno())
        made = Upload(self._upload, self._name, self._size, self._digest.hexdigest())
        write_json(
            self._beside / _META, {"name": made.name, "bytes": made.bytes, "sha256": made.sha256, "by": self._by}
        )
        self._beside.rename(self._root / self._upload)
        return made


class Uploads:
    """The uploads below one folder. Every machine that runs workers must have access to it."""

    def __init__(self, root: Path, *, max_bytes: int) -> None:
        self._root = root
        self._max_bytes = max_bytes

    def check(self, name: str) -> None:
        """Raises InvalidInputError if a name cannot be a file's, or its suffix is of no known format."""
        if not name.isprintable() or {"/", "\\"} & set(name) or not 0 < len(name.encode()) <= _LONGEST_NAME_BYTES:
            raise InvalidInputError(
                "bad file name",
                received=name,
                expected=f"1 to {_LONGEST_NAME_BYTES} bytes of printable characters, no slashes",
            )
        if name.startswith((".", "~$")) or (Path(name).suffix and detect_format(Path(name)) is None):
            raise InvalidInputError(
                "nothing reads such a file", received=name, expected="a suffix of a format that GET /v1/formats lists"
            )

    async def receive(self, name: str, chunks: AsyncIterator[bytes], by: str = "") -> Upload:
        """Store an asynchronous stream of bytes, sent by the key `by`. Nothing is stored if it fails.

        Raises InvalidInputError for a bad name, TooLargeError over `max_bytes`, StorageFullError if writing fails.
        """
        with self._incoming(name, by) as incoming:
            async for chunk in chunks:
                incoming.add(chunk)
            return incoming.finish()

    def store(self, name: str, chunks: Iterable[bytes]) -> Upload:
        """Like `receive`, for a synchronous stream."""
        with self._incoming(name) as incoming:
            for chunk in chunks:
                incoming.add(chunk)
            return incoming.finish()

    @contextmanager
    def _incoming(self, name: str, by: str = "") -> Iterator[_Incoming]:
        self.check(name)
        upload = sortable_id("u")
        beside = self._root / f".{upload}"
        try:
            beside.mkdir(parents=True)
            with (beside / name).open("wb") as out:
                yield _Incoming(upload, name, by, self._max_bytes, out, beside, self._root)
        except OSError as error:
            raise StorageFullError(f"the upload could not be stored: {error}") from error
        finally:
            shutil.rmtree(beside, ignore_errors=True)

    def path(self, upload: str) -> Path:
        """The path of an upload's file. Raises NotFoundError."""
        return self._root / upload / str(self._told(upload)["name"])

    def check_owner(self, upload: str, by: str) -> None:
        """Raises NotFoundError unless the key `by` has sent the upload; "" is nobody's key."""
        if str(self._told(upload).get("by", "")) != by:
            raise NotFoundError("no such upload", received=upload)

    def _told(self, upload: str) -> dict[str, Any]:
        """What is stored beside an upload's file. Raises NotFoundError."""
        path = self._root / upload / _META
        if _ID.fullmatch(upload) and not path.is_file():
            path = path.with_name(_OLD_META)  # of an earlier release
        if not _ID.fullmatch(upload) or not path.is_file():
            raise NotFoundError("no such upload", received=upload)
        return read_json(path)

    def tidy(self, keep_days: float) -> int:
        """Delete uploads older than `keep_days` and incomplete ones older than a day; returns how many."""
        oldest = time.time() - keep_days * _DAY
        gone = 0
        for folder in self._root.glob("*") if self._root.is_dir() else ():
            unfinished = folder.name.startswith(".")
            if folder.stat().st_mtime < (time.time() - _DAY if unfinished else oldest):
                shutil.rmtree(folder, ignore_errors=True)
                gone += 1
        return gone
