"""Made-up documents, and arithmetic that several tests compare with."""

from __future__ import annotations

import random
from typing import Any

WORDS = [
    "alpha",
    "beta",
    "gamma",
    "delta",
    "epsilon",
    "zeta",
    "eta",
    "theta",
    "iota",
    "kappa",
    "lambda",
    "mu",
    "nu",
    "xi",
    "omicron",
    "pi",
    "rho",
    "sigma",
    "tau",
    "upsilon",
    "phi",
    "chi",
    "psi",
    "omega",
    "機械学習",
    "naïve",
    "running",
]


def random_documents(count: int, *, seed: int) -> list[dict[str, Any]]:
    """Documents of Zipf-like words with metadata of every kind."""
    rng = random.Random(seed)
    weights = [1 / (rank + 1) for rank in range(len(WORDS))]
    documents: list[dict[str, Any]] = []
    for number in range(count):
        metadata: dict[str, Any] = {}
        if rng.random() < 0.8:
            metadata["colour"] = rng.choice(WORDS[:6])
        if rng.random() < 0.7:
            metadata["size"] = rng.randrange(100)
        if rng.random() < 0.5:
            metadata["tags"] = rng.sample(WORDS[:8], rng.randrange(1, 4))
        if rng.random() < 0.5:
            metadata["day"] = f"2024-02-{rng.randrange(1, 29):02}"
        if rng.random() < 0.5:
            metadata["flag"] = rng.random() < 0.5
        documents.append(
            {
                "id": f"doc{number}",
                "title": " ".join(rng.choices(WORDS, weights, k=rng.randrange(0, 4))),
                "text": ". ".join(
                    " ".join(rng.choices(WORDS, weights, k=rng.randrange(1, 30))) for _ in range(rng.randrange(1, 5))
                ),
                "lang": "",
                "metadata": metadata,
            }
        )
    return documents


def byte_length(length: int) -> int:
    """A field length as one byte keeps it (Lucene's SmallFloat.intToByte4, exact up to 39): rounded down."""
    if length < 40:
        return length
    value = length - 24
    shift = max(0, value.bit_length() - 4)
    return ((value >> shift) << shift) + 24
