"""Back up a whole installation while it is in use, and restore it."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hyblink.app.application import App
from hyblink.app.core.clock import now, sortable_id
from hyblink.app.core.errors import ConflictError, CorruptionError, InvalidInputError
from hyblink.app.core.manifest import check_manifest, write_manifest
from hyblink.app.core.settings import Settings
from hyblink.app.engines.catalog import Catalog
from hyblink.app.engines.embedded.backup import copy_collection, copy_sqlite, put_back
from hyblink.app.engines.opensearch import backup as snapshots
from hyblink.app.engines.opensearch.client import Cluster
from hyblink.app.engines.opensearch.registry import ClusterRegistry
from hyblink.app.engines.opensearch.store import OpenSearchStore

FORMAT = 1
_RECORDS, _INSTALLATION = "records.sqlite", "installation.json"


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup: when it was made, of which engine, its collections, and its files with their bytes."""

    created: str
    engine: str
    collections: tuple[str, ...]
    files: int
    bytes: int


def back_up(app: App, folder: Path, repository: str | None = None) -> Backup:
    """Copy everything that cannot be made again into a new folder; on OpenSearch take snapshots, and note where.

    Searches and writes go on. What was acknowledged before this began is in the backup. `repository` is a snapshot
    repository of the cluster. Raises ConflictError if the folder exists and is not empty.
    """
    settings = app.settings
    if repository is not None and settings.engine != "opensearch":
        raise InvalidInputError("a snapshot repository is for OpenSearch", received=repository)
    folder = folder.absolute()
    if folder.exists() and any(folder.iterdir()):
        raise ConflictError("the folder is not empty", received=str(folder), expected="a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    try:
        more: dict[str, Any] = {}
        names = tuple(app.catalog.names())
        places = _places(settings)
        for name in ("models", "uploads"):
            if places[name].is_dir():
                shutil.copytree(places[name], beside / name)
        if settings.engine == "opensearch":
            with _cluster(settings) as cluster:
                more["snapshots"] = snapshots.take_snapshots(cluster, repository)
        else:
            for name in names:
                with app.catalog.lock(name):
                    copy_collection(settings.data_dir / "collections" / name, beside / "collections" / name)
            app.catalog.records().count("job")  # it is there, even if nothing was recorded yet
            copy_sqlite(settings.data_dir / _RECORDS, beside / _RECORDS)
            shutil.copyfile(settings.data_dir / _INSTALLATION, beside / _INSTALLATION)
        files = sorted(path.relative_to(beside).as_posix() for path in beside.rglob("*") if path.is_file())
        fields = {"format": FORMAT, "engine": settings.engine, "created": now(), "collections": list(names), **more}
        told = write_manifest(beside, files, **fields)
        if folder.exists():
            folder.rmdir()
        beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return _described(told)


def read_backup(folder: Path) -> tuple[Backup, dict[str, Any]]:
    """Check a backup's files against their checksums; return what it is, and its manifest.

    Raises CorruptionError if a file is damaged or missing, InvalidInputError if the folder is no backup.
    """
    try:
        told = check_manifest(folder)
    except FileNotFoundError as error:
        raise InvalidInputError(
            "the folder is no backup", received=str(folder), expected="one made by `hyblink backup`"
        ) from error
    if told.get("format") != FORMAT or not isinstance(told.get("collections"), list):
        raise CorruptionError("a backup of another release", received=told.get("format"), expected=str(FORMAT))
    return _described(told), told


def restore(settings: Settings, folder: Path, *, replace: bool = False) -> tuple[Backup, Path | None]:
    """Put a backup back. With `replace`, what is there is moved aside (on OpenSearch it is deleted).

    Returns the backup, and the folder to which the former data was moved. Raises ConflictError if there is data
    already, or if a service runs on the data folder.
    """
    backup, told = read_backup(folder)
    if backup.engine != settings.engine:
        raise InvalidInputError(
            "the backup is of another engine", received=backup.engine, expected=f"HYBLINK_ENGINE={backup.engine}"
        )
    data = settings.data_dir
    places = _places(settings)
    if _answers(data / "service.sock"):
        raise ConflictError("a service runs on this data folder", received=str(data), expected="a stopped service")
    logs = [data / f"{_RECORDS}-wal", data / f"{_RECORDS}-shm"]
    there = [path for path in (*places.values(), *logs) if path.exists()]
    if there and not replace:
        raise ConflictError(
            "there is data already",
            received=", ".join(str(path) for path in there),
            expected="--replace, which moves it aside, or another HYBLINK_DATA_DIR",
        )
    data.mkdir(parents=True, exist_ok=True)
    aside = data / sortable_id("replaced-") if there else None
    if settings.engine == "opensearch":
        with _cluster(settings) as cluster:
            snapshots.put_back(cluster, told["snapshots"], replace=replace)
        _take_back(settings)
    if aside is not None:
        aside.mkdir()
        for path in reversed(there):  # collections before the rest: no half of them answers
            shutil.move(path, aside / path.name)
    put_back(folder, places)
    return backup, aside


def _places(settings: Settings) -> dict[str, Path]:
    """Where the parts of a backup belong. Collections come last, so that none answers before the rest is there."""
    data = settings.data_dir
    places = {"models": settings.models_dir, "uploads": settings.jobs.uploads or data / "uploads"}
    if settings.engine != "opensearch":
        places |= {name: data / name for name in (_RECORDS, _INSTALLATION, "collections")}
    return places


def _take_back(settings: Settings) -> None:
    """Take back what the snapshot of the data has of writes that the snapshot of the catalog does not know yet."""
    catalog = Catalog(ClusterRegistry(settings))
    try:
        for name in catalog.names():
            for record in catalog.generations(name):
                store = catalog.engine(name, record.id).store
                assert isinstance(store, OpenSearchStore)
                with store.writer():
                    store.uncommitted_entries(repair=True)
    finally:
        catalog.close()


@contextmanager
def _cluster(settings: Settings) -> Iterator[Cluster]:
    made = Cluster(settings.opensearch)
    try:
        yield made
    finally:
        made.close()


def _described(told: dict[str, Any]) -> Backup:
    files = told["files"]
    size = sum(int(item["bytes"]) for item in files.values())
    return Backup(str(told["created"]), str(told["engine"]), tuple(told["collections"]), len(files), size)


def _answers(path: Path) -> bool:
    if not path.exists() or not hasattr(socket, "AF_UNIX"):
        return False
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(2)
        try:
            connection.connect(str(path))
        except OSError:
            return False
        return True
