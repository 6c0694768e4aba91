"""Encoding throughput: every runtime and precision against sentence-transformers called plainly, on the same texts."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from hyblink.app.core.settings import EncodeSettings
from hyblink.app.encoders.dense.transformer import DenseTransformer
from hyblink.app.encoders.loading.in_torch import load_sentence_transformer
from hyblink.app.encoders.runtimes.devices import cpu_has_bf16
from tests.benchmarks.timing import entities, table

_TEXTS = 384
_FORMS = (("torch", "fp32"), ("torch", "bf16"), ("onnx", "fp32"), ("onnx", "int8"), ("onnx", "int8_all"))


def run(data: Path, _work: Path, _passages: int) -> None:
    rows = list(entities(data, _TEXTS))
    titles, texts = [r["title"] for r in rows], [r["text"] for r in rows]
    joined = [f"{title}. {text}" for title, text in zip(titles, texts, strict=True)]
    plain = load_sentence_transformer(EncodeSettings().dense_model, "cpu")
    plain.max_seq_length = 256
    reference = plain.encode(joined, batch_size=32, normalize_embeddings=True, show_progress_bar=False)
    started = time.perf_counter()
    plain.encode(joined, batch_size=32, normalize_embeddings=True, show_progress_bar=False)
    lines: list[list[object]] = [
        ["sentence-transformers, called plainly", _TEXTS / (time.perf_counter() - started), 1.0]
    ]
    for runtime, precision in _FORMS:
        if precision == "bf16" and not cpu_has_bf16():
            continue
        encoder = DenseTransformer(EncodeSettings(runtime=runtime), precision)
        encoder.encode_passages(titles[:32], texts[:32])
        took = []
        for _ in range(3):
            started = time.perf_counter()
            vectors = encoder.encode_passages(titles, texts)
            took.append(time.perf_counter() - started)
        cosine = float((vectors * reference).sum(1).mean())
        lines.append([f"hyblink, {runtime}, {precision}", _TEXTS / float(np.median(took)), cosine])
    table(["encoding", "passages/s", "mean cosine"], lines)
