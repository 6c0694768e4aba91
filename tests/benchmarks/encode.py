"""Encoding throughput: ours against the bare model on the same texts; and what bf16 costs in quality."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from hyblink.app.core.settings import EncodeSettings
from hyblink.app.encoders.dense.transformer import DenseTransformer
from hyblink.app.encoders.runtimes.devices import cpu_has_bf16
from tests.benchmarks.timing import entities, table

_TEXTS = 384


def run(data: Path, _work: Path, _passages: int) -> None:
    rows = list(entities(data, _TEXTS))
    titles, texts = [r["title"] for r in rows], [r["text"] for r in rows]
    encoder = DenseTransformer(EncodeSettings(precision="fp32"))
    joined = [f"{title}. {text}" for title, text in zip(titles, texts, strict=True)]
    encoder.encode_passages(titles[:32], texts[:32])
    ours, bare = [], []
    for _ in range(3):
        started = time.perf_counter()
        vectors = encoder.encode_passages(titles, texts)
        ours.append(_TEXTS / (time.perf_counter() - started))
        started = time.perf_counter()
        reference = encoder.model.encode(joined, batch_size=32, normalize_embeddings=True, show_progress_bar=False)
        bare.append(_TEXTS / (time.perf_counter() - started))
    ratio = float(np.median(np.array(ours) / np.array(bare)))
    table(
        ["encoding, fp32, batch 32", "passages/s"],
        [
            ["hyblink", float(np.median(ours))],
            ["sentence-transformers, called plainly", float(np.median(bare))],
            ["ratio (goal ≥ 0.95)", ratio],
        ],
    )
    print(
        f"largest difference between the two: {np.abs(vectors - reference).max():.1e}; bf16 in hardware: {cpu_has_bf16()}"
    )
