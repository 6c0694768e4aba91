"""What the derived indexes share: a folder, a lock between processes, and the moment they stand at."""

from __future__ import annotations

import logging
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import filelock
import numpy as np

from hyblink.app.core.errors import CorruptionError, UnavailableError
from hyblink.app.core.manifest import check_manifest, sync_directory, write_manifest
from hyblink.app.core.types.arrays import IdArray, ScoreArray
from hyblink.app.core.types.ranking import Scored

LOCK_WAIT_S = 60.0
log = logging.getLogger(__name__)
T = TypeVar("T")


class AheadError(Exception):
    """The index on disk has applied more than the reader can see: take a newer reader and try again."""


@contextmanager
def index_lock(folder: Path) -> Iterator[None]:
    """Exclusive between processes and threads: whoever holds it may change the files of the index."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder.parent / f".{folder.name}.lock")
    try:
        lock.acquire(timeout=LOCK_WAIT_S)
    except filelock.Timeout:
        raise UnavailableError(f"the {folder.name} index is being changed by another process") from None
    try:
        yield
    finally:
        lock.release()


def top(rows: IdArray, scores: ScoreArray, k: int) -> Scored:
    """The k best, best first, ties by ascending row."""
    if len(rows) > k:
        # Keep every tie of the k-th score, so that which of them survive depends on the row alone.
        bar = np.partition(scores, len(scores) - k)[len(scores) - k]
        keep = scores >= bar
        rows, scores = rows[keep], scores[keep]
    order = np.lexsort((rows, -scores))[:k]
    return Scored(rows[order], scores[order].astype(np.float32))


class Bases:
    """The published files of an index: one folder per build, named by the change it stands at.

    A build is written beside, its manifest last, then renamed into place. Opening picks the newest one that matches
    its manifest; damaged ones are deleted, and the index is derived again from the store.
    """

    def __init__(self, folder: Path, format_version: int, identity: str) -> None:
        self._folder = folder
        self._format = format_version
        self._identity = identity

    def open_newest(self, open_base: Callable[[int, Path, dict[str, Any]], T]) -> T | None:
        """What `open_base` makes of the newest whole build (its change, folder and manifest); None where none is."""
        with index_lock(self._folder):
            for change, path in sorted(self._builds(), reverse=True):
                try:
                    manifest = check_manifest(path)
                    if manifest.get("format") == self._format and manifest.get("identity") == self._identity:
                        return open_base(change, path, manifest)
                except (CorruptionError, OSError) as error:
                    log.warning("deleting a damaged build of the %s index: %s", self._folder.name, error)
                shutil.rmtree(path, ignore_errors=True)
        return None

    def newest_change(self) -> int:
        """The change of the newest published build, 0 where there is none."""
        return max((change for change, _ in self._builds()), default=0)

    def problems(self) -> list[str]:
        """What is wrong with the published builds, without touching them."""
        found = []
        for _, path in sorted(self._builds()):
            try:
                check_manifest(path)
            except (CorruptionError, OSError) as error:
                found.append(f"{self._folder.name}: {error}")
        return found

    def _builds(self) -> list[tuple[int, Path]]:
        pattern = re.compile(r"base-(\d+)$")
        return [(int(m.group(1)), p) for p in self._folder.glob("base-*") if (m := pattern.match(p.name))]

    def publish(
        self,
        change: int,
        write: Callable[[Path], Iterable[str]],
        open_base: Callable[[int, Path, dict[str, Any]], T],
        **fields: object,
    ) -> T:
        """Have `write` fill a folder and name its files, publish it as the build of `change`, drop older ones.

        What `open_base` makes of exactly this build is returned, whatever other processes publish meanwhile.
        """
        with index_lock(self._folder):
            beside = self._folder / f".building-{os.getpid()}-{threading.get_ident()}"
            shutil.rmtree(beside, ignore_errors=True)
            beside.mkdir(parents=True)
            try:
                files = list(write(beside))
                manifest = write_manifest(
                    beside, files, format=self._format, identity=self._identity, change=change, **fields
                )
                final = self._folder / f"base-{change}"
                shutil.rmtree(final, ignore_errors=True)
                beside.rename(final)
                sync_directory(self._folder)
            finally:
                shutil.rmtree(beside, ignore_errors=True)
            opened = open_base(change, final, manifest)
            for other, path in self._builds():
                if other < change:
                    shutil.rmtree(path, ignore_errors=True)
            return opened
