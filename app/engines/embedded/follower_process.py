"""The process that a long run's follower starts: it brings the indexes to the present whenever it is nudged."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import BinaryIO

from hyblink.app.core.manifest import read_json
from hyblink.app.core.settings import Settings
from hyblink.app.core.types.collections import GenerationRecord
from hyblink.app.engines.embedded.engine import EmbeddedEngine


def follow(folder: Path, source: BinaryIO) -> None:
    """The process: a line with the settings, then a byte for each nudge, until the end."""
    settings = Settings.model_validate_json(source.readline())
    record = next(path for path in (folder / "generation.json", folder / "building.json") if path.exists())
    engine = EmbeddedEngine(folder, GenerationRecord(**read_json(record)), settings)
    while source.read1(65536):  # type: ignore[attr-defined]
        engine.snapshot()
    engine.snapshot()
    engine.publish_sparse()  # so that the process that waits need not derive it again
    engine.close()


if __name__ == "__main__":
    follow(Path(sys.argv[1]), sys.stdin.buffer)
