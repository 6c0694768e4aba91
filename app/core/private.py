"""Keeps other users of a machine out of the data folder, which holds queries and hashes of keys."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

log = logging.getLogger(__name__)
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def make_private(folder: Path) -> None:
    """Make a folder that only this user may enter, or take the rights of others from one that is there and ours.

    On systems without such rights, and for folders that cannot be changed, this does nothing.
    """
    if not hasattr(os, "getuid"):
        return
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
        if found.st_uid == os.getuid() and found.st_mode & _OTHERS:
            folder.chmod(stat.S_IMODE(found.st_mode) & ~_OTHERS)
            log.info("only this user can read %s from now on (private_data)", folder)
    except OSError as error:
        log.debug("the rights of %s stay as they are: %s", folder, error)


def write_private_files() -> None:
    """Let this process create all files for this user only, so that copies of the data folder are private too."""
    os.umask(os.umask(0o077) | 0o077)
