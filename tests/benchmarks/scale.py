"""Memory of dense indexes over el-wiki's 189,461 entities, and over 5.9 million vectors made of theirs.

Wikipedia in the original's size: each real vector 31 times with small noise, other noise each time. Indexes are built
here and served by a process of its own that does nothing else (`python -m tests.benchmarks.scale FOLDER KIND QUERIES`).
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hyblink.app.bootstrap import build
from hyblink.app.core.settings import DenseSettings, Settings
from hyblink.app.core.types.ranking import EMPTY, Scored
from hyblink.app.engines.dense.index import FaissIndex
from hyblink.app.engines.dense.kinds import KINDS, DenseKind
from hyblink.app.engines.derived import top
from tests.benchmarks.timing import entities, latencies, questions, table

_TIMES = 31
_K = 64
_QUERIES = 200
_CHUNK = 4096
_MANY: tuple[DenseKind, ...] = ("ivf,sq8", "ivf,pq")


class _Repeated:
    """As much of a store's reader as an index needs: the vectors, then each again with noise."""

    change = 1

    def __init__(self, vectors: npt.NDArray[np.float16], times: int) -> None:
        self._vectors, self._times = vectors, times

    def __len__(self) -> int:
        return self._times * len(self._vectors)

    def vectors_since(self, _change: int) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
        if _change >= self.change:
            return
        noise = 0.25 / np.sqrt(self._vectors.shape[1])
        row = 1
        for time_of in range(self._times):
            rng = np.random.default_rng(time_of)
            for at in range(0, len(self._vectors), _CHUNK):
                block = self._vectors[at : at + _CHUNK].astype(np.float32)
                if time_of:
                    block = block + noise * rng.standard_normal(block.shape, dtype=np.float32)
                    block = block / np.linalg.norm(block, axis=1, keepdims=True)
                yield np.arange(row, row + len(block)), block.astype(np.float16).astype(np.float32)
                row += len(block)

    moment = ""

    def continues(self, _change: int, _moment: str) -> bool:
        return True

    def removed_since(self, _change: int) -> npt.NDArray[np.int64]:
        return np.zeros(0, dtype=np.int64)


def run(data: Path, work: Path, count: int) -> None:
    vectors, queries = _real(data, work, count)
    for times, kinds in ((1, KINDS), (_TIMES, _MANY)):
        _measure(_Repeated(vectors, times), queries, kinds, work / f"scale-{times}")


def _real(data: Path, work: Path, count: int) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.float32]]:
    """Vectors of the entities and of questions over them; an hour's work on two cores is kept as it is done."""
    encoder = build(Settings(data_dir=work / "none")).encoders.default_dense
    folder = work / "entity-vectors"
    folder.mkdir(parents=True, exist_ok=True)
    rows = list(entities(data, count))
    parts = []
    for at in range(0, len(rows), _CHUNK):
        part = rows[at : at + _CHUNK]
        path = folder / f"{at}-{len(part)}.npy"
        if not path.exists():
            made = encoder.encode_passages([row["title"] for row in part], [row["text"] for row in part])
            np.save(path.with_suffix(".tmp.npy"), made.astype(np.float16))
            path.with_suffix(".tmp.npy").rename(path)
        parts.append(np.load(path, allow_pickle=False))
    asked = questions(data)
    kept = [asked[n * len(asked) // _QUERIES] for n in range(_QUERIES)]
    return np.concatenate(parts), np.stack([encoder.encode_query(text) for text in kept])


def _measure(reader: _Repeated, queries: npt.NDArray[np.float32], kinds: tuple[DenseKind, ...], folder: Path) -> None:
    truth = [set(found.rows.tolist()) for found in _exact(reader, queries)]
    asked = folder / "queries.npy"
    folder.mkdir(parents=True, exist_ok=True)
    np.save(asked, queries)
    lines = []
    for kind in kinds:
        own = folder / kind.replace(",", "-")
        shutil.rmtree(own, ignore_errors=True)
        started = time.perf_counter()
        FaissIndex(own, "bench", queries.shape[1], kind, DenseSettings()).rebuild(reader)  # type: ignore[arg-type]
        built = time.perf_counter() - started
        command = [sys.executable, "-m", "tests.benchmarks.scale", str(own), kind, str(asked)]
        served = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        recall = np.mean([len(one & set(found)) / _K for one, found in zip(truth, served["rows"], strict=True)])
        lines.append([kind, float(recall), served["p50"], served["p95"], served["before"], served["resident"],
                      served["own"], built])  # fmt: skip
        print(lines[-1], flush=True)
        shutil.rmtree(own)
    table(
        [
            f"{len(reader):,} vectors × {queries.shape[1]}, served by one process", f"recall@{_K} of exact", "p50 ms",
            "p95 ms", "resident MB before opening", "at most", "its own afterwards", "built in s",
        ],
        lines,
    )  # fmt: skip


def _exact(reader: _Repeated, queries: npt.NDArray[np.float32]) -> list[Scored]:
    best = [EMPTY for _ in queries]
    for rows, block in reader.vectors_since(-1):
        for at, scores in enumerate(queries @ block.T):
            near = np.argpartition(-scores, min(_K, len(scores) - 1))[:_K]
            found = best[at]
            best[at] = top(np.concatenate([found.rows, rows[near]]), np.concatenate([found.scores, scores[near]]), _K)
    return best


def serve(folder: Path, kind: str, queries: npt.NDArray[np.float32]) -> dict[str, Any]:
    """Open an index, search it, and say how long that took and what was resident at most, in MB, with mapped files."""
    before = _status("VmRSS")
    index = FaissIndex(folder, "bench", queries.shape[1], kind, DenseSettings())
    view = index.catch_up(_Opened())  # type: ignore[arg-type]
    rows = [view.search(query, _K, None).rows.tolist() for query in queries]
    p50, p95 = latencies(lambda query: view.search(query, _K, None), list(queries))
    return {
        "rows": rows,
        "p50": p50,
        "p95": p95,
        "before": before,
        "resident": _status("VmHWM"),
        "own": _status("RssAnon"),
    }


class _Opened:
    """The store that an index was built of, asked for nothing more."""

    change = 1


def _status(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


if __name__ == "__main__":
    print(json.dumps(serve(Path(sys.argv[1]), sys.argv[2], np.load(sys.argv[3], allow_pickle=False))))
