"""Artifact folders with a manifest that lists each file's size and sha256, and atomic file writes.

A file is written under a temporary name in the same folder, flushed to disk and renamed. The manifest is written
last, so a folder without one is unfinished and is never opened.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson

from hyblink.app.core.errors import CorruptionError

MANIFEST = "manifest.json"


def write_atomic(path: Path, data: bytes) -> None:
    """Replace the content of `path` atomically and durably. A reader sees the old or the new content, never a mix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Flush a directory to disk, so that renames in it survive a crash."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON file atomically."""
    write_atomic(path, orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises CorruptionError if the file does not hold one."""
    try:
        value = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise CorruptionError(f"{path.parent.name}/{path.name} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise CorruptionError(
            f"{path.parent.name}/{path.name} does not hold a JSON object", received=type(value).__name__
        )
    return value


_CHECKSUM = "checksum"


def _checksum_of(value: Mapping[str, Any]) -> str:
    data = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def write_checked_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON file atomically, with a checksum of its fields."""
    write_json(path, {**value, _CHECKSUM: _checksum_of(value)})


def read_checked_json(path: Path) -> dict[str, Any]:
    """Read what `write_checked_json` wrote. Raises CorruptionError if it was changed. Without a checksum it is trusted.

    Files of earlier releases have none.
    """
    found = read_json(path)
    told = found.pop(_CHECKSUM, None)
    if told is not None and told != _checksum_of(found):
        raise CorruptionError(
            f"{path.parent.name}/{path.name} does not match its checksum",
            expected=f"the file as it was written, or one without the field {_CHECKSUM!r}",
        )
    return found


def sha256(path: Path) -> str:
    """The file's sha256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(folder: Path, files: Iterable[str], **fields: Any) -> dict[str, Any]:
    """Write `folder/manifest.json` with the given fields and each file's size and sha256, and return its content.

    The files are flushed to disk first.
    """
    listed: dict[str, Any] = {}
    for name in files:
        path = folder / name
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        listed[name] = {"bytes": path.stat().st_size, "sha256": sha256(path)}
    manifest = {**fields, "files": listed}
    write_json(folder / MANIFEST, manifest)
    return manifest


def check_manifest(folder: Path, *, checksums: bool = True) -> dict[str, Any]:
    """The folder's manifest, after a check of each file's size and, with `checksums`, of its sha256.

    Raises CorruptionError naming the first file that does not match, and FileNotFoundError if the folder has no
    manifest (it is unfinished).
    """
    manifest = read_json(folder / MANIFEST)
    files = manifest.get("files")
    if not isinstance(files, dict):
        raise CorruptionError(f"{folder.name}/{MANIFEST} lists no files")
    for name, expected in files.items():
        size, digest = _entry(folder, name, expected)
        path = folder / name
        if path.is_symlink() or not path.resolve().is_relative_to(folder.resolve()):
            raise CorruptionError(f"{folder.name}/{name} is a link, or lies elsewhere", expected="a file of the folder")
        found = path.stat().st_size if path.is_file() else -1
        if found != size:
            raise CorruptionError(
                f"{folder.name}/{name} has the wrong size",
                received=found,
                expected=f"{size} bytes",
            )
        if checksums and sha256(path) != digest:
            raise CorruptionError(f"{folder.name}/{name} does not match its sha256")
    return manifest


def _entry(folder: Path, name: str, value: object) -> tuple[int, str]:
    """The size and sha256 that a manifest lists for a file."""
    size = value.get("bytes") if isinstance(value, dict) else None
    digest = value.get("sha256") if isinstance(value, dict) else None
    if not isinstance(size, int) or not isinstance(digest, str):
        raise CorruptionError(f"{folder.name}/{MANIFEST} is malformed at {name!r}", expected="bytes and sha256")
    return size, digest
