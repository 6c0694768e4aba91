"""FAISS types on real vectors (the real ones repeated with small noise up to the size asked): recall, p50, memory, build."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import numpy as np

from hyblink.app.bootstrap import build
from hyblink.app.core.selection import RowSelection
from hyblink.app.core.settings import DenseSettings, Settings
from hyblink.app.engines.dense.index import FaissIndex
from hyblink.app.engines.dense.kinds import KINDS
from hyblink.app.engines.derived import top
from tests.benchmarks.timing import entities, latencies, questions, table

_REAL = 6000
_K = 100


class _Reader:
    """As much of a store's reader as an index needs."""

    def __init__(self, vectors: np.ndarray) -> None:
        self.change = 1
        self._vectors = vectors
        self._rows = np.arange(1, len(vectors) + 1, dtype=np.int64)

    def vectors_since(self, _change: int):  # type: ignore[no-untyped-def]
        for at in range(0, len(self._rows), 4096):
            yield self._rows[at : at + 4096], self._vectors[at : at + 4096].astype(np.float32)

    moment = ""

    def continues(self, _change: int, _moment: str) -> bool:
        return True

    def removed_since(self, _change: int) -> np.ndarray:
        return np.zeros(0, dtype=np.int64)


def real_vectors(data: Path, work: Path) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of the first entities and of the questions, encoded once and kept."""
    path = work / "vectors.npz"
    if not path.exists():
        encoder = build(Settings(data_dir=work / "none")).encoders.default_dense
        rows = list(entities(data, _REAL))
        passages = encoder.encode_passages([r["title"] for r in rows], [r["text"] for r in rows])
        queries = np.stack([encoder.encode_query(text) for text in questions(data)[:200]])
        work.mkdir(parents=True, exist_ok=True)
        np.savez(path, passages=passages, queries=queries)
    with np.load(path) as kept:
        return kept["passages"], kept["queries"]


def run(data: Path, work: Path, passages: int) -> None:
    real, queries = real_vectors(data, work)
    size = passages or 189_461
    rng = np.random.default_rng(0)
    noise = 0.25 / np.sqrt(real.shape[1])
    blocks = [real]
    while sum(map(len, blocks)) < size:
        block = real + noise * rng.standard_normal(real.shape).astype(np.float32)
        blocks.append(block / np.linalg.norm(block, axis=1, keepdims=True))
    vectors = np.concatenate(blocks)[:size].astype(np.float16)
    rows = np.arange(1, size + 1)
    truth = []
    full = vectors.astype(np.float32)
    for query in queries:
        truth.append(set(top(rows, full @ query, _K).rows.tolist()))
    del full
    lines = []
    for kind in KINDS:
        folder = work / f"dense-{kind.replace(',', '-')}"
        shutil.rmtree(folder, ignore_errors=True)
        index = FaissIndex(folder, "bench", vectors.shape[1], kind, DenseSettings())
        started = time.perf_counter()
        index.rebuild(_Reader(vectors))  # type: ignore[arg-type]
        built = time.perf_counter() - started
        view = index.catch_up(_Reader(vectors))  # type: ignore[arg-type]
        recall = np.mean(
            [len(truth[n] & set(view.search(q, _K, None).rows.tolist())) / _K for n, q in enumerate(queries)]
        )
        p50, p95 = latencies(lambda q: view.search(q, _K, None), list(queries))
        half = rows[::2]
        filtered, _ = latencies(lambda q: view.search(q, _K, RowSelection(half)), list(queries)[:50])
        base = next(folder.glob("base-*"))
        bytes_per = (base / "index.faiss").stat().st_size / size
        lines.append([kind, float(recall), p50, p95, filtered, built, bytes_per])
    table(
        [
            f"{size:,} vectors × {vectors.shape[1]}",
            f"recall@{_K}",
            "p50 ms",
            "p95 ms",
            "p50 ms, half filtered out",
            "build s",
            "index bytes/vector",
        ],
        lines,
    )
