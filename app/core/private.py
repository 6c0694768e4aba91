"""Keeps other users of a machine out of the data folder, which holds queries and hashes of keys."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

log = logging.getLogger(__name__)
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def make_private(folder: Path) -> None:
    """Take the rights of group and others from a folder that exists and is ours, and from all that is created later.

    On systems without such rights this does nothing.
    """
    if not hasattr(os, "getuid"):
        return
    os.umask(os.umask(0o077) | 0o077)
    try:
        found = folder.stat()
        if found.st_uid == os.getuid() and found.st_mode & _OTHERS:
            folder.chmod(stat.S_IMODE(found.st_mode) & ~_OTHERS)
            log.info("only this user can read %s from now on (private_data)", folder)
    except OSError as error:
        log.debug("the rights of %s stay as they are: %s", folder, error)
