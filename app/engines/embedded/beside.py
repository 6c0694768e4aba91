"""Indexes of a data folder that cannot be written: in a temporary folder, with the published builds linked into it."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hyblink.app.engines.derived import BASED


def indexes_beside(folder: Path) -> tempfile.TemporaryDirectory[str]:
    """A temporary folder with the indexes of a generation, which may be brought up to date there.

    The BM25 index is copied, because reading it creates lock files. It is deleted with the returned object.
    """
    made = tempfile.TemporaryDirectory(prefix="hyblink-", ignore_cleanup_errors=True)
    target = Path(made.name)
    if (folder / "bm25").is_dir():
        shutil.copytree(folder / "bm25", target / "bm25")
    for name in BASED:
        (target / name).mkdir()
        for build in (folder / name).glob("base-*"):
            (target / name / build.name).symlink_to(build.resolve())
    return made
