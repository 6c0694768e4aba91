"""Candidates that are not encoded yet: the best are encoded while the search runs (the passage side of beta search)."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hyblink.app.core.budget import models_may_go_on
from hyblink.app.core.errors import EncoderUnavailableError, OverBudgetError
from hyblink.app.core.ports.encoders import HybridEncoder
from hyblink.app.core.ports.views import Snapshot
from hyblink.app.core.recent import Recent
from hyblink.app.core.settings import SearchSettings
from hyblink.app.core.types.arrays import TermWeights, VectorArray
from hyblink.app.core.types.collections import GenerationRecord
from hyblink.app.core.types.documents import SparseForm
from hyblink.app.core.types.ranking import RankingProfile, Signal
from hyblink.app.core.types.search import WaitingReport
from hyblink.indexer.encode import headings_of
from hyblink.ranker.complete import CompleteScores, fuse
from hyblink.ranker.estimate import estimated
from hyblink.ranker.query_forms import QueryForms

_TOGETHER = 4
_KEPT = 4096
_LEFT_OUT = "vectors of candidates that wait for theirs: their scores are estimated"


@dataclass(frozen=True, slots=True)
class _Encoded:
    vector_D: VectorArray
    weights: TermWeights | None


class RecentVectors(Recent[_Encoded]):
    """The vectors that searches have made, by encoder and text."""

    def __init__(self) -> None:
        super().__init__(_KEPT)

    @staticmethod
    def key(record: GenerationRecord, heading: str, text: str) -> bytes:
        """The cache key: a digest of the encoders and of what they read."""
        digest = hashlib.blake2b(digest_size=16)
        for part in (record.dense_encoder, record.vdr_model, heading, text):
            digest.update(f"{len(part)} {part}".encode("utf-8", "surrogatepass"))
        return digest.digest()


def with_dense(scores: CompleteScores) -> CompleteScores:
    """The scores with a line of missing dense scores, for a collection that has no vector yet."""
    unknown = np.full((1, len(scores.rows)), np.nan)
    return replace(
        scores,
        signals=(*scores.signals, Signal.DENSE),
        raw_SC=np.concatenate([scores.raw_SC, unknown]),
        leg_ranks=(*scores.leg_ranks, {}),
    )


def _known(scores: CompleteScores) -> CompleteScores:
    """The scores without signals that no candidate has a score of."""
    kept = [at for at in range(len(scores.signals)) if not np.isnan(scores.raw_SC[at]).all()]
    return replace(
        scores,
        signals=tuple(scores.signals[at] for at in kept),
        raw_SC=scores.raw_SC[kept],
        leg_ranks=tuple(scores.leg_ranks[at] for at in kept),
    )


def encode_candidates(
    record: GenerationRecord,
    snapshot: Snapshot,
    forms: QueryForms,
    encoder: HybridEncoder,
    scores: CompleteScores,
    profile: RankingProfile,
    settings: SearchSettings,
    recent: RecentVectors,
) -> tuple[CompleteScores, WaitingReport | None]:
    """Encode the best candidates that wait for their vectors, as many as the settings' number and time allow.

    Returns the scores with those of these candidates, and a report; None if no candidate waits. The best are those of
    the fused score with estimates. If the encoder fails, the scores stay as they are, without signals that no candidate
    has a score of.
    """
    wanted = [at for at, signal in enumerate(scores.signals) if signal in (Signal.DENSE, Signal.VDR)]
    missing = np.isnan(scores.raw_SC[wanted]).any(axis=0)
    columns = np.flatnonzero(missing)
    if not len(columns):
        return scores, None
    started = time.perf_counter()
    provisional = fuse(scores, profile, estimated(scores)).scores_C
    best = columns[np.argsort(-provisional[columns], kind="stable")][: settings.encode_waiting].tolist()
    until = started + settings.encode_waiting_ms / 1e3
    made = _encoded(record, snapshot, encoder, scores, best, until, recent)
    raw = scores.raw_SC.copy()
    for at in wanted:
        for column, own in made.items():
            if np.isnan(raw[at, column]):
                raw[at, column] = _score(scores.signals[at], own, forms)
    took_ms = round((time.perf_counter() - started) * 1e3, 3)
    rows = frozenset(int(scores.rows[column]) for column in made)
    found = replace(scores, raw_SC=raw, encoded_now=rows)
    if not made:
        found = _known(found)
        if not np.isnan(found.raw_SC).any():
            return found, None
    return found, WaitingReport(len(made), len(columns) - len(made), took_ms)


def _encoded(
    record: GenerationRecord,
    snapshot: Snapshot,
    encoder: HybridEncoder,
    scores: CompleteScores,
    columns: Sequence[int],
    until: float,
    recent: RecentVectors,
) -> dict[int, _Encoded]:
    """The encodings of candidates by column, in the order of `columns`, as far as time and budget go.

    A batch is begun only if there is time for one that takes as long as the batch before.
    """
    reader = snapshot.reader
    passages = reader.passages(scores.rows[np.array(columns, dtype=np.int64)]) if columns else {}
    there = [(column, passages[int(scores.rows[column])]) for column in columns if int(scores.rows[column]) in passages]
    headings = headings_of(reader, [passage for _, passage in there]) if there else []
    keys = [recent.key(record, heading, p.text) for heading, (_, p) in zip(headings, there, strict=True)]
    made: dict[int, _Encoded] = {}
    new: list[int] = []
    for at, ((column, _), key) in enumerate(zip(there, keys, strict=True)):
        known = recent.get(key)
        if known is None:
            new.append(at)
        else:
            made[column] = known
    took = 0.0
    for begin in range(0, len(new), _TOGETHER):
        started = time.perf_counter()
        if started + took >= until or not models_may_go_on(_LEFT_OUT):
            break
        part = new[begin : begin + _TOGETHER]
        try:
            found = encoder.encode_passages([headings[at] for at in part], [there[at][1].text for at in part])
        except (EncoderUnavailableError, OverBudgetError):
            break  # the answer says how many were not reached, and the budget what it left out
        vectors = found.vectors_ND.astype(np.float16).astype(np.float32)  # as they are stored
        for number, at in enumerate(part):
            own = _Encoded(vectors[number], found.weights[number] if found.weights else None)
            recent.put(keys[at], own)
            made[there[at][0]] = own
        took = time.perf_counter() - started
    return made


def _score(signal: Signal, own: _Encoded, forms: QueryForms) -> float:
    """The raw score of an encoded passage; NaN if the encoder does not give what the signal needs."""
    if signal is Signal.DENSE:
        return float(own.vector_D @ forms.vector())
    if own.weights is None or forms.form is not SparseForm.VDR:
        return float("nan")
    query = forms.weights()
    _, asked, stored = np.intersect1d(query.ids, own.weights.ids, assume_unique=True, return_indices=True)
    return float(query.weights[asked].astype(np.float64) @ own.weights.weights[stored])
