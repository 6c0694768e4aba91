"""The cache of int8 exports of rerankers. An export is made once per model, and again if damaged or outdated."""

from __future__ import annotations

import shutil
from pathlib import Path

from hyblink.app.core.errors import CorruptionError
from hyblink.app.core.manifest import check_manifest
from hyblink.app.encoders.runtimes.availability import int8_weight_bits


def exported(model: str, folder: Path) -> Path:
    """Make sure that `folder` holds the int8 export of a reranker, and return it. An export takes about 20 s.

    The export is made again if it is damaged, has another format version, or has weights too wide for this CPU.
    """
    from filelock import FileLock

    from hyblink.app.encoders.runtimes.export import FORMAT, export

    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        try:
            kept = check_manifest(folder)
            current = kept.get("format") == FORMAT and kept.get("weight_bits", 8) <= int8_weight_bits()
        except (FileNotFoundError, CorruptionError):
            current = False
        if not current:
            shutil.rmtree(folder, ignore_errors=True)
            export(model, folder, kind="cross", int8=True)
    return folder
