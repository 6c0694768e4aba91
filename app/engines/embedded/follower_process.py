"""The process that a follower starts for a long ingestion run: it updates the indexes at each nudge."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import BinaryIO

from hyblink.app.core.manifest import read_checked_json
from hyblink.app.core.settings import Settings
from hyblink.app.core.types.collections import GenerationRecord
from hyblink.app.engines.embedded.engine import EmbeddedEngine


def follow(folder: Path, source: BinaryIO) -> None:
    """The main loop of the process. `folder` is the generation's folder.

    `source` carries one line with the settings as JSON, then one byte per nudge. At its end the process updates the
    indexes a last time, publishes the sparse index and returns.
    """
    settings = Settings.model_validate_json(source.readline())
    record = next(path for path in (folder / "generation.json", folder / "building.json") if path.exists())
    engine = EmbeddedEngine(folder, GenerationRecord(**read_checked_json(record)), settings)
    while source.read1(65536):  # type: ignore[attr-defined]
        engine.snapshot()
    engine.snapshot()
    engine.publish_sparse()  # so that the waiting process can load it instead of building it again
    engine.close()


if __name__ == "__main__":
    follow(Path(sys.argv[1]), sys.stdin.buffer)
