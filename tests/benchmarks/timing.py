"""Timing and memory, the same way everywhere: medians of many calls after a warm-up."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np


def latencies(run: Callable[[Any], object], inputs: Sequence[Any], warm_up: int = 5) -> tuple[float, float]:
    """Median and 95th percentile in milliseconds over the inputs, one call each."""
    for one in inputs[:warm_up]:
        run(one)
    taken = []
    for one in inputs:
        started = time.perf_counter()
        run(one)
        taken.append((time.perf_counter() - started) * 1e3)
    return float(np.median(taken)), float(np.percentile(taken, 95))


def resident_mb() -> float:
    """This process's resident memory that is its own (anonymous), in MB; memory-mapped files come and go."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon")) / 1024


def entities(data: Path, limit: int = 0) -> Iterator[dict[str, Any]]:
    """The 189,461 entities as documents."""
    with gzip.open(data / "el-wiki" / "entities.jsonl.gz", "rt", encoding="utf-8") as file:
        for line in islice(file, limit or None):
            row = json.loads(line)
            yield {"id": str(row["id"]), "title": row["title"], "text": row["text"]}


def questions(data: Path) -> list[str]:
    """Real questions over the entities."""
    with gzip.open(data / "el-wiki" / "questions" / "queries.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line)["text"] for line in file]


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A Markdown table."""
    print("| " + " | ".join(head) + " |")
    print("|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(f"{c:,.3f}" if isinstance(c, float) else str(c) for c in row) + " |")
    print(flush=True)
