"""Shared parts of the indexes derived from the store: a lock between processes, top-k selection, published builds."""

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
from hyblink.app.core.ports.store import StoreReader
from hyblink.app.core.types.arrays import IdArray, ScoreArray
from hyblink.app.core.types.ranking import Scored
from hyblink.app.engines.disk import disk_errors

BASED = ("sparse", "vdr", "dense")
"""The folders of the indexes that are published as `Bases`."""
LOCK_WAIT_S = 60.0
log = logging.getLogger(__name__)
T = TypeVar("T")


class AheadError(Exception):
    """The index includes writes up to `change`, newer than the reader's snapshot. Retry with a newer reader.

    If the store itself does not reach that far, it was put back from a copy: the index has to be made anew.
    """

    def __init__(self, change: int) -> None:
        super().__init__(f"the index stands at change {change}")
        self.change = change


@contextmanager
def index_lock(folder: Path) -> Iterator[None]:
    """Hold the exclusive lock, between processes and threads, for changing the files of the index in `folder`.

    Raises UnavailableError if the lock is not free within `LOCK_WAIT_S` seconds.
    """
    with disk_errors():
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
    """The k rows with the highest scores, best first, ties by ascending row. `scores` is parallel to `rows`."""
    if len(rows) > k:
        # Keep every row that ties with the k-th score, so that the row id alone decides which of them are returned.
        bar = np.partition(scores, len(scores) - k)[len(scores) - k]
        keep = scores >= bar
        rows, scores = rows[keep], scores[keep]
    order = np.lexsort((rows, -scores))[:k]
    return Scored(rows[order], scores[order].astype(np.float32))


class Bases:
    """The published builds of an index: one folder per build, `base-<change counter of the store>`.

    A build is written to a temporary folder, its manifest last, and then renamed into place. Opening takes the newest
    build that matches its manifest, format version and identity (the encoder), and deletes those that do not. Without
    a valid build the index is rebuilt from the store.
    """

    def __init__(self, folder: Path, format_version: int, identity: str) -> None:
        self._folder = folder
        self._format = format_version
        self._identity = identity

    def open_newest(self, reader: StoreReader, open_base: Callable[[int, Path, dict[str, Any]], T]) -> T | None:
        """Call `open_base(change, folder, manifest)` on the newest valid build; return its result, or None.

        A build is valid for the reader's history only, see `StoreReader.moment`. Newer ones are left to `AheadError`.
        """
        with index_lock(self._folder):
            for change, path in sorted(self._builds(), reverse=True):
                try:
                    manifest = check_manifest(path)
                    own = manifest.get("format") == self._format and manifest.get("identity") == self._identity
                    if own and manifest.get("change") != change:
                        raise CorruptionError(f"{path.name} is the build of change {manifest.get('change')}")
                    if own and (change > reader.change or reader.continues(change, manifest.get("moment", ""))):
                        return open_base(change, path, manifest)
                    if own:
                        log.warning(
                            "deleting a build of the %s index: the store was put back from a copy", self._folder.name
                        )
                except (CorruptionError, OSError) as error:
                    log.warning("deleting a damaged build of the %s index: %s", self._folder.name, error)
                shutil.rmtree(path, ignore_errors=True)
        return None

    def clear(self) -> None:
        """Delete all builds."""
        with index_lock(self._folder):
            for _, path in self._builds():
                shutil.rmtree(path, ignore_errors=True)

    def newest_change(self) -> int:
        """The change counter of the newest published build; 0 if there is none."""
        return max((change for change, _ in self._builds()), default=0)

    def problems(self) -> list[str]:
        """The defects of the published builds as messages. Nothing is changed or deleted."""
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
        moment: str,
        write: Callable[[Path], Iterable[str]],
        open_base: Callable[[int, Path, dict[str, Any]], T],
        **fields: object,
    ) -> T:
        """Publish a build of the store at `change`, with the `moment` there, and delete older builds.

        `write` fills the given folder and returns the names of its files. `fields` are added to the manifest. Returns
        the result of `open_base` for exactly this build, even if other processes publish at the same time.
        """
        with index_lock(self._folder):
            beside = self._folder / f".building-{os.getpid()}-{threading.get_ident()}"
            shutil.rmtree(beside, ignore_errors=True)
            beside.mkdir(parents=True)
            try:
                files = list(write(beside))
                manifest = write_manifest(
                    beside, files, format=self._format, identity=self._identity, change=change, moment=moment,
                    **fields,
                )  # fmt: skip
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
