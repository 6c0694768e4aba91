"""The dearest legal requests of a `search` key with the shipped limits, and what each of them costs."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.benchmarks.timing import table
from tests.support.dearest import FULL, attacks, prepare, service


def run(_: Path | None, work: Path, __: int) -> None:
    folder = work / "dearest"
    if not folder.exists():
        shutil.rmtree(work / "dearest.tmp", ignore_errors=True)
        prepare(work / "dearest.tmp", FULL, encode=True).rename(folder)
    rows = []
    with service(folder) as measured:
        for name, request in attacks(FULL).items():
            cost = measured.cost(request)
            left_out = "; ".join(item.split(":")[0] for item in cost.left_out)
            rows.append(
                [name, request.path, cost.cpu_s, cost.memory / 1e6, cost.wall_s, cost.size / 1e6, cost.status, left_out]
            )
    table(["request", "route", "CPU s", "MB", "s", "MB sent", "status", "left out"], rows)
