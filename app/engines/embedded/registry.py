"""The registry of the embedded engine: JSON files, replaced atomically, beside the data of each generation.

::

    <data_dir>/collections/<name>/collection.json   current.json   profiles/<version>.json
                                  generations/<id>/ generation.json, profile.json, store.sqlite, bm25/, sparse/, dense/
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import filelock

from hyblink.app.core.errors import InvalidInputError, WriterConflictError
from hyblink.app.core.manifest import read_checked_json, write_checked_json
from hyblink.app.core.settings import Settings
from hyblink.app.core.types.collections import GenerationRecord
from hyblink.app.engines.disk import disk_errors
from hyblink.app.engines.embedded.engine import EmbeddedEngine
from hyblink.app.engines.embedded.records import SqliteRecords


class FileRegistry:
    """The `Registry` of the collections under one data directory."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._root = settings.data_dir / "collections"
        self._records = SqliteRecords(settings.data_dir / "records.sqlite")

    def names(self) -> list[str]:
        return [path.parent.name for path in self._root.glob("*/collection.json")]

    def stored(self) -> list[str]:
        return [path.parent.name for path in self._root.glob("*/generations")]

    def _path(self, name: str, key: str) -> Path:
        return self._root / name / f"{key}.json"

    def read(self, name: str, key: str) -> dict[str, Any] | None:
        try:
            return read_checked_json(self._path(name, key))
        except FileNotFoundError:
            return None

    def write(self, name: str, key: str, value: dict[str, Any]) -> None:
        with disk_errors():
            write_checked_json(self._path(name, key), value)

    def remove(self, name: str, key: str) -> None:
        with disk_errors():
            self._path(name, key).unlink(missing_ok=True)

    def generations(self, name: str) -> list[str]:
        return sorted(path.name for path in (self._root / name / "generations").glob("g??????"))

    def profiles(self, name: str) -> list[int]:
        return sorted(int(path.stem) for path in (self._root / name / "profiles").glob("*.json"))

    def drop(self, name: str, generation: str | None = None) -> None:
        folder = self._root / name
        if generation:
            shutil.rmtree(folder / "generations" / generation, ignore_errors=True)
            return
        (folder / "collection.json").unlink(missing_ok=True)  # first: what a crash leaves is not half a collection
        for path in folder.glob("*"):
            if path.name != "deleting.json":
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        lock = filelock.FileLock(self._root / f".{name}.lock")
        try:
            with disk_errors():
                self._root.mkdir(parents=True, exist_ok=True)
                lock.acquire(timeout=self._settings.ingest.writer_wait_s)
        except filelock.Timeout:
            raise WriterConflictError("another process is changing this collection", received=name) from None
        try:
            yield
        finally:
            lock.release()

    def moment(self, name: str, generation: str) -> AbstractContextManager[None]:  # noqa: ARG002
        return nullcontext()  # reading local files needs no batching

    def published(self, name: str, generation: str) -> None:
        pass

    def close(self) -> None:
        self._records.close()

    def records(self) -> SqliteRecords:
        return self._records

    def open(self, record: GenerationRecord) -> EmbeddedEngine:
        if record.dense_index == "knn":
            raise InvalidInputError(
                "the embedded engine has no k-NN index of its own",
                received=record.dense_index,
                expected="another dense_index, or HYBLINK_ENGINE=opensearch",
            )
        return EmbeddedEngine(self._root / record.collection / "generations" / record.id, record, self._settings)
