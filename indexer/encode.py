"""Encodes stored passages: adds dense vectors and VDR weights to passages that have none (the "full tier").

All functions are idempotent: a passage that has a vector is skipped.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from hyblink.app.core.ports.encoders import HybridEncoder
from hyblink.app.core.ports.engine import Engine
from hyblink.app.core.types.arrays import IdArray, as_rows
from hyblink.app.jobs.claims import BLOCK, Claims

_POLL_S = 0.2


def encode_rows(engine: Engine, encoder: HybridEncoder, rows: IdArray) -> int:
    """Encode those of `rows` that exist and have no vector yet; returns how many.

    `encoder` must be the encoder of the engine's generation.
    """
    reader = engine.store.reader()
    done, _ = reader.vectors(rows)
    waiting = np.setdiff1d(rows, done)
    passages = list(reader.passages(waiting).values())
    if not passages:
        return 0
    made = encoder.encode_passages([p.title for p in passages], [p.text for p in passages])
    return engine.store.put_vectors(as_rows([p.row for p in passages]), made.vectors_ND, made.weights)


def encode_waiting(
    engine: Engine,
    encoder: HybridEncoder,
    claims: Claims,
    progress: Callable[[int], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> int:
    """Encode the waiting passages that no other process has claimed, oldest first; returns how many.

    `progress` is called after each block with the number of passages in it. Ends early when `stop` returns True.
    """
    total = 0
    while not stop():
        with claims.some(engine, BLOCK) as rows:
            if not len(rows):
                break
            done = encode_rows(engine, encoder, rows)
        total += done
        progress(done)
    return total


def encode_all(
    engine: Engine,
    encoder: HybridEncoder,
    claims: Claims,
    progress: Callable[[int], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> int:
    """Encode until no passage waits; returns how many were encoded here.

    Waits for passages that other processes have claimed, and encodes them if their claims expire. `progress` and `stop`
    are as in `encode_waiting`.
    """
    total = 0
    while not stop():
        total += encode_waiting(engine, encoder, claims, progress, stop)
        if not len(engine.store.reader().unencoded(1)):
            break
        time.sleep(_POLL_S)
    return total
