"""What a disk refuses, said in our terms: it is full, or it cannot be written."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hyblink.app.core.errors import StorageFullError, UnavailableError

_FULL = {errno.ENOSPC, errno.EDQUOT}
_REFUSED = {errno.EROFS, errno.EACCES, errno.EPERM}


def writable(folder: Path) -> bool:
    """Whether this process may create files in a folder, or in the nearest one above that exists."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return os.access(folder, os.W_OK | os.X_OK)


def read_only() -> UnavailableError:
    """The error for a write to a data folder that cannot be written."""
    return UnavailableError(
        "the data folder cannot be written", expected="a writable HYBLINK_DATA_DIR; searches work without"
    )


@contextmanager
def disk_errors(what: str = "nothing was changed") -> Iterator[None]:
    """Turn errors of a full disk into StorageFullError, and those of one that cannot be written into UnavailableError.

    Any library may raise them. `what` says what the failed write means.
    """
    try:
        yield
    except (OSError, ValueError) as error:
        # tantivy raises ValueError for every failure, with the system's error message in it
        code, said = getattr(error, "errno", None), str(error)
        if code in _FULL or any(os.strerror(full) in said for full in _FULL):
            raise StorageFullError(f"the disk is full; {what}: {error}") from error
        if code in _REFUSED or os.strerror(errno.EROFS) in said:
            raise read_only() from error
        raise
