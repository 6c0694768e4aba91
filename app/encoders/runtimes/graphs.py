"""Exported graphs that are kept between starts: made once for each model, and anew when damaged or outdated."""

from __future__ import annotations

import shutil
from pathlib import Path

from hyblink.app.core.errors import CorruptionError
from hyblink.app.core.manifest import check_manifest
from hyblink.app.encoders.runtimes.availability import int8_weight_bits


def exported(model: str, folder: Path) -> Path:
    """The int8 form of a model that re-ranks in `folder`, made there if it is not there whole: about 20 s, once.

    One that an earlier release wrote in another form, or a machine whose CPU multiplies other weights, is made anew.
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
