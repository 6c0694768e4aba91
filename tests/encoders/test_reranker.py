"""The time limit of re-ranking."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from hyblink.app.core.settings import EncodeSettings
from hyblink.app.encoders.loading.once import Once
from hyblink.app.encoders.reranker import Reranker


def test_waiting_for_a_busy_cross_encoder_ends_with_the_deadline() -> None:
    encoder = Reranker("any", EncodeSettings())
    scorer = cast("Any", SimpleNamespace(score=lambda pairs, idf: np.ones(len(pairs), dtype=np.float32)))
    encoder._loaded = Once(lambda: (scorer, 4), "it")
    passages = [("", "a"), ("", "b")]
    with encoder._computing:  # another search is being re-ranked
        started = time.perf_counter()
        scores = encoder.score("q", passages, started + 0.05)
        assert np.isnan(scores).all()
        assert time.perf_counter() - started >= 0.05
    assert encoder.score("q", passages, time.perf_counter() + 60).tolist() == [1.0, 1.0]
