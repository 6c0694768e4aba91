"""`make bench`: every figure of docs/benchmarks.md. `ARGS="speed quality"` picks parts; reported, never asserted."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

PARTS = (
    "installation",
    "start",
    "quality",
    "speed",
    "dense",
    "encode",
    "runtimes",
    "opensearch",
    "products",
    "learned",
    "neural",
    "training",
    "linking",
    "scale",
    "load",
    "dearest",
    "structure",
    "files",
    "waiting",
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("parts", nargs="*", default=list(PARTS), help=f"some of {', '.join(PARTS)}")
    parser.add_argument("--work", type=Path, default=Path(".hyblink-bench"), help="where indexes are kept between runs")
    parser.add_argument("--passages", type=int, default=0, help="only so many of the large corpus (0: all)")
    chosen = parser.parse_args()
    unknown = set(chosen.parts) - set(PARTS)
    if unknown:
        sys.exit(f"unknown parts {sorted(unknown)}; expected some of {', '.join(PARTS)}")
    data = Path(os.environ["HYBLINK_DATA"]) if os.environ.get("HYBLINK_DATA") else None
    from tests.benchmarks import (
        dearest,
        dense,
        encode,
        half_encoded,
        installation,
        linking,
        load,
        neural,
        opensearch,
        quality,
        real_files,
        runtimes,
        scale,
        speed,
        start,
        structure,
        training,
    )

    runs = {
        "installation": installation.run,
        "start": start.run,
        "quality": quality.run,
        "speed": speed.run,
        "dense": dense.run,
        "encode": encode.run,
        "runtimes": runtimes.run,
        "opensearch": opensearch.run,
        "products": opensearch.products,
        "learned": opensearch.learned,
        "neural": neural.run,
        "training": training.run,
        "linking": linking.run,
        "scale": scale.run,
        "load": load.run,
        "dearest": dearest.run,
        "structure": structure.run,
        "files": real_files.run,
        "waiting": half_encoded.run,
    }
    for part in chosen.parts:
        print(f"\n## {part}\n", flush=True)
        if data is None and part not in {"start", "load", "dearest", "structure", "files"}:
            print("skipped: HYBLINK_DATA does not name a folder with benchmarks")
            continue
        runs[part](data, chosen.work, chosen.passages)


if __name__ == "__main__":
    main()
