"""Copies of all collections of a data folder while they are in use, and the way back.

A store is copied in one read transaction. Published builds of indexes are copied before it, so that none is newer than
its store. What can be made again from the store is left out.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Mapping
from pathlib import Path

from hyblink.app.core.errors import UnavailableError
from hyblink.app.engines.derived import BASED
from hyblink.app.engines.embedded.store.connection import translated

STORE = "store.sqlite"


def copy_collection(folder: Path, target: Path) -> None:
    """Copy a collection's folder. The caller holds the collection's lock."""
    for path in folder.glob("*.json"):
        _copy(path, target / path.name)
    for path in (folder / "profiles").glob("*.json"):
        _copy(path, target / "profiles" / path.name)
    for generation in sorted((folder / "generations").glob("g??????")):
        if (generation / "generation.json").exists():
            copied = target / "generations" / generation.name
            try:
                _copy_generation(generation, copied)
            except (FileNotFoundError, UnavailableError):
                if (generation / "generation.json").exists():
                    raise
                shutil.rmtree(copied, ignore_errors=True)  # it was dropped meanwhile


def _copy_generation(folder: Path, target: Path) -> None:
    for name in BASED:
        for build in (folder / name).glob("base-*"):
            _copy_build(build, target / name / build.name)
    for path in folder.glob("*.json"):
        _copy(path, target / path.name)
    copy_sqlite(folder / STORE, target / STORE)


def _copy_build(build: Path, target: Path) -> None:
    """Copy a published build; nothing if a newer one replaces it meanwhile."""
    try:
        for path in build.iterdir():
            _copy(path, target / path.name)
    except FileNotFoundError:
        shutil.rmtree(target, ignore_errors=True)


def copy_sqlite(path: Path, target: Path) -> None:
    """Copy an SQLite database as it is at one moment, with what is still in its write-ahead log."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with translated():
        connection = sqlite3.connect(f"file:{path}?mode=rw", uri=True, isolation_level=None, timeout=30.0)
        try:
            connection.execute("VACUUM INTO ?", (str(target),))
        finally:
            connection.close()


def _copy(path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, target)


def put_back(source: Path, places: Mapping[str, Path]) -> None:
    """Copy what a backup has to its places: beside them first, then renamed, in the order given."""
    beside = {
        name: place.with_name(f".{place.name}.restoring") for name, place in places.items() if (source / name).exists()
    }
    try:
        for name, path in beside.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(path, ignore_errors=True)
            if (source / name).is_dir():
                shutil.copytree(source / name, path)
            else:
                shutil.copyfile(source / name, path)
        for name, path in beside.items():
            path.replace(places[name])
    finally:
        for path in beside.values():
            shutil.rmtree(path, ignore_errors=True)
