"""Encodes stored passages: adds dense vectors and VDR weights to passages that have none (the "full tier").

All functions are idempotent: a passage that has a vector is skipped.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence

import numpy as np

from hyblink.app.core.ports.encoders import MIXED_COSINE, HybridEncoder
from hyblink.app.core.ports.engine import Engine
from hyblink.app.core.ports.store import StoreReader
from hyblink.app.core.types.arrays import IdArray, as_rows
from hyblink.app.core.types.documents import Document, Passage, encoded_title, heading_of
from hyblink.app.jobs.claims import BLOCK, Claims

_POLL_S = 0.2
_SAME_COSINE = 1 - 1e-5
"""The least cosine of float32 vectors of all runtimes and devices. Vectors in bfloat16 of short texts reach .99998."""


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
    made = encoder.encode_passages(headings_of(reader, passages), [p.text for p in passages])
    return engine.store.put_vectors(as_rows([p.row for p in passages]), made.vectors_ND, made.weights)


def headings_of(reader: StoreReader, passages: Sequence[Passage]) -> list[str]:
    """What stands before the texts of passages when they are encoded: title and path."""
    metadata = reader.metadata(reader.document_keys(as_rows([p.row for p in passages])))
    return [heading_of(encoded_title(p.title, own), p.path) for p, own in zip(passages, metadata, strict=True)]


def reuse_vectors(engine: Engine, gone: Sequence[str], new: Sequence[str]) -> int:
    """Give new documents the vectors of gone ones with the same text, such as those of renamed files; returns how many.

    `gone` are ids of documents that are still stored.
    """
    reader = engine.store.reader()
    old: dict[str, str] = {}
    for name in gone:
        document = reader.get_document(name)
        if document is not None:
            old.setdefault(_encoded(document), name)
    copied = 0
    for name in new if old else ():
        document = reader.get_document(name)
        source = old.get(_encoded(document)) if document is not None else None
        if source is None:
            continue
        for found in reader.export([source]):
            vectors = [vector for vector in found.vectors if vector is not None]
            rows = reader.document_rows(name)
            if len(vectors) == len(rows):
                weights = [own for own in found.weights if own is not None]
                engine.store.put_vectors(rows, np.stack(vectors), weights if len(weights) == len(rows) else ())
                copied += 1
    return copied


def _encoded(document: Document) -> str:
    """A digest of what encoders read of a document."""
    digest = hashlib.sha256()
    paths = repr([(one.start, one.path) for one in document.sections])
    for part in (encoded_title(document.title, document.metadata), document.text, paths):
        digest.update(f"{len(part)} {part}".encode())
    return digest.hexdigest()


def other_vectors(engine: Engine, encoder: HybridEncoder, sample: int = 8) -> float | None:
    """None if a sample of the stored vectors are those that `encoder`, the generation's, makes of the same passages.

    Else their least cosine: the vectors are of another precision or of other weights. Ids of earlier releases did not
    tell that vectors were made in bfloat16. Raises EncoderUnavailableError.
    """
    name = engine.record.dense_encoder
    if name.endswith(":bf16"):
        return None  # devices differ in bfloat16 by as much
    least = MIXED_COSINE if ":int8" in name else _SAME_COSINE
    reader = engine.store.reader()
    rows = reader.live_rows(encoded=True)
    rows = rows[:: max(1, len(rows) // sample)][:sample]
    known, stored = reader.vectors(rows)
    found = reader.passages(known)
    pairs = [(vector, found[row]) for row, vector in zip(known.tolist(), stored, strict=True) if row in found]
    if not pairs:
        return None
    passages = [passage for _, passage in pairs]
    old = np.stack([vector for vector, _ in pairs])
    best = np.full(len(passages), -1.0)
    # Earlier releases encoded names of files as titles.
    for headings in (headings_of(reader, passages), [p.heading for p in passages]):
        made = encoder.encode_passages(headings, [p.text for p in passages]).vectors_ND
        lengths = np.linalg.norm(old, axis=1) * np.linalg.norm(made, axis=1)
        best = np.maximum(best, np.einsum("nd,nd->n", old, made) / lengths)
        if best.min() >= least:
            return None
    return float(best.min())


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
