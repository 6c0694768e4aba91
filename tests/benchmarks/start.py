"""How long `hyblink --help` takes."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

from tests.benchmarks.timing import table


def run(_data: Path | None, _work: Path, _passages: int) -> None:
    taken = []
    for _ in range(7):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "hyblink.app.cli.main", "--help"], check=True, capture_output=True)
        taken.append(time.perf_counter() - started)
    table(["command", "median s", "goal"], [["hyblink --help", statistics.median(taken), "< 0.5"]])
