"""Rank documents for a search request: first-stage retrieval, complete scoring, fusion and re-ranking.

A leg is the first-stage retriever of one or more signals, such as BM25 or dense vectors. Each leg proposes candidate
passages; then every candidate is scored by every leg.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from hyblink.app.analysis.analyzer import Analyzer
from hyblink.app.core.budget import uncharged
from hyblink.app.core.checks import fold
from hyblink.app.core.errors import EncoderUnavailableError
from hyblink.app.core.filters import And, Filter, parse_filter
from hyblink.app.core.ports.collections import Collections
from hyblink.app.core.ports.encoders import EncodedPassages, EncodedQuery, HybridEncoder
from hyblink.app.core.ports.engine import Engine
from hyblink.app.core.ports.store import Selection
from hyblink.app.core.ports.views import Snapshot
from hyblink.app.core.settings import SearchSettings
from hyblink.app.core.types.arrays import ScoreArray
from hyblink.app.core.types.collections import GenerationRecord
from hyblink.app.core.types.ranking import (
    EMPTY,
    RankingProfile,
    RerankReport,
    RerankRequest,
    Scored,
    Signal,
    SignalValue,
    VdrMode,
)
from hyblink.app.core.types.search import (
    LINKED_ENTITIES,
    LegReport,
    SearchRequest,
    WaitingReport,
)
from hyblink.app.encoders.pool import EncoderPool
from hyblink.app.search.request import check_request
from hyblink.app.search.waiting import RecentVectors, encode_candidates, with_dense
from hyblink.ranker.collapse import RankedDocuments, collapse
from hyblink.ranker.complete import CompleteScores, FusedScores, complete, fuse
from hyblink.ranker.estimate import estimated
from hyblink.ranker.explain import ledger
from hyblink.ranker.leg import Leg
from hyblink.ranker.query_forms import AnalyzedQuery, QueryForms, vdr_mode
from hyblink.ranker.rerank import CrossScore, RecentScores, Reranked, rerank
from hyblink.ranker.retrieve import Others, retrieve
from hyblink.ranker.signals.entity import entity_leg
from hyblink.ranker.signals.registry import SIGNALS, grouped, leg_of, proposing


class UnavailableEncoder:
    """A placeholder for an encoder that cannot be loaded. Every call raises the error of the failed load."""

    def __init__(self, error: EncoderUnavailableError) -> None:
        self._error = error

    def load(self) -> None:
        raise self._error

    def encode_query(self, text: str) -> EncodedQuery:  # noqa: ARG002
        raise self._error

    def encode_queries(self, texts: Sequence[str]) -> list[EncodedQuery]:  # noqa: ARG002
        raise self._error

    def encode_passages(self, titles: Sequence[str], texts: Sequence[str]) -> EncodedPassages:  # noqa: ARG002
        raise self._error

    def prior_idf(self, ids: npt.NDArray[np.int32]) -> ScoreArray | None:  # noqa: ARG002
        raise self._error


@dataclass(frozen=True, slots=True)
class Ranked:
    """All ranked documents of a search, before one page of them is cut out.

    A column is a candidate's index in the score matrices. `proposed` holds each leg's candidates, `cross` the
    re-ranker's scores by column, `allowed` the rows that pass the filter (None: all), `timings` milliseconds by stage.
    """

    engine: Engine
    snapshot: Snapshot
    forms: QueryForms
    legs: Mapping[Signal, Leg]
    proposed: Mapping[Signal, Scored]
    reports: tuple[LegReport, ...]
    fused: FusedScores
    documents: RankedDocuments
    profile: RankingProfile
    allowed: Selection | None
    timings: dict[str, float]
    cross: Mapping[int, CrossScore]
    rerank: RerankReport | None
    waiting: WaitingReport | None = None

    def score(self, column: int) -> float:
        """Return a candidate's final score: the fused score plus the re-ranker's contribution."""
        line = self.cross.get(column)
        return float(self.fused.scores_C[column]) + (line.contribution if line else 0.0)

    def ledger(self, column: int) -> tuple[SignalValue, ...]:
        """Return a candidate's score by signal; the contributions sum to `score(column)`."""
        return ledger(self.fused, column, self.profile, self.cross.get(column))


class Ranker:
    """Ranks the documents of a collection for a search request. Safe to share between threads."""

    def __init__(self, collections: Collections, encoders: EncoderPool, settings: SearchSettings) -> None:
        self._collections = collections
        self._encoders = encoders
        self._settings = settings
        self._recent = RecentScores()
        self._vectors = RecentVectors()
        # Legs of several searches at once share these threads; the work inside them releases the interpreter lock.
        self._pool = ThreadPoolExecutor(16, thread_name_prefix="hyblink-leg")

    def close(self) -> None:
        """Stop the leg threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def rank(self, collection: str, request: SearchRequest, extra_document: str | None = None) -> Ranked:
        """Retrieve, score, fuse and optionally re-rank the candidates of a request.

        The passages of the document `extra_document` are scored too, even if no leg proposed them. Raises UserError
        for a bad request, and UnavailableError if no leg answered.
        """
        clock = _Clock()
        tree = check_request(request, self._settings)
        with uncharged():  # what indexes have missed is caught up for all searches
            opened = self._collections.open(collection, request.generation)
        engine, snapshot = opened.engine, opened.snapshot
        profile = profile_for(opened.profile, request)
        clock.took("snapshot")
        forms = self._forms(engine.record, snapshot, profile, request)
        allowed = _allowed(snapshot, tree, request)
        clock.took("filter")
        legs, proposed, reports = self._propose(forms, request, allowed)
        use = request.entities
        if use is not None and use.entities and use.mode == "boost":
            boosting = entity_leg([(snapshot.reader.select(_annotated([e.id])), e.probability) for e in use.entities])
            proposed |= boosting.search(request.candidates, allowed, EMPTY.rows)
            legs[Signal.ENTITY] = boosting
            profile = replace(profile, weights={**profile.weights, Signal.ENTITY: use.weight})
        clock.took("legs")
        clock.timings["encode_query"] = forms.encode_ms
        extra = snapshot.reader.document_rows(extra_document) if extra_document is not None else None
        answered = {signal: legs[signal] for signal in (*proposing(), Signal.ENTITY) if signal in proposed}
        scores = complete(answered, proposed, extra, self._pool)
        clock.took("complete")
        waiting = None
        if forms.encoder is not None:
            if self._encodes(snapshot, request) and not snapshot.has_vectors:
                scores = with_dense(scores)
            scores, waiting = encode_candidates(
                engine.record, snapshot, forms, forms.encoder, scores, profile, self._settings, self._vectors
            )
            if waiting is not None:
                clock.took("encode_waiting")
        fused = fuse(scores, profile, estimated(scores))
        documents = collapse(fused, snapshot.reader.document_keys(scores.rows), snapshot.reader.doc_ids)
        clock.took("fuse")
        reranked = Reranked(documents)
        if request.rerank is not None:
            reranked = self._rerank(snapshot, forms, scores, documents, profile, request.query, request.rerank)
            clock.took("rerank")
        return Ranked(
            engine, snapshot, forms, answered, proposed, reports, fused, reranked.documents, profile, allowed,
            clock.timings, reranked.lines, reranked.report, waiting,
        )  # fmt: skip

    def _forms(
        self, record: GenerationRecord, snapshot: Snapshot, profile: RankingProfile, request: SearchRequest
    ) -> QueryForms:
        """The query in the form that each leg needs (terms, tokens, vectors), computed on first use."""
        query = fold(request.query)
        terms = _distinct(Analyzer(record.analyzer).terms(query), self._settings.max_query_terms)
        encoder: HybridEncoder | None = None
        asked: VdrMode = profile.vdr
        best: VdrMode = "bag"
        try:
            if snapshot.has_vectors or snapshot.vdr is not None or self._encodes(snapshot, request):
                encoder = self._encoders.hybrid_encoder(record)
                if any(SIGNALS.of(signal).needs_encoder for signal in request.signals):
                    encoder.load()  # here, so that the legs' deadline does not count it
            best = self._encoders.best_vdr_mode(record)
        except EncoderUnavailableError as error:
            # Legs that need the encoder report this error; BM25 and the bag-of-tokens signal still answer.
            encoder = UnavailableEncoder(error)
            asked = request.vdr or "auto"
        bag = self._encoders.bag(record.vdr_encoder)
        mode = vdr_mode(asked, snapshot, best)
        return QueryForms(snapshot, AnalyzedQuery(query, terms), bag, encoder, mode, self._settings.query_weights)

    def _encodes(self, snapshot: Snapshot, request: SearchRequest) -> bool:
        """Whether the search may encode candidates though the collection has no vector yet."""
        return snapshot.dense is not None and Signal.DENSE in request.signals and self._settings.encode_waiting > 0

    def _propose(
        self, forms: QueryForms, request: SearchRequest, allowed: Selection | None
    ) -> tuple[dict[Signal, Leg], dict[Signal, Scored], tuple[LegReport, ...]]:
        """Run the requested legs in parallel; return the legs, their candidates, and a report for each."""
        legs: dict[Signal, Leg] = {}

        def search(signals: tuple[Signal, ...], others: Others) -> Mapping[Signal, Scored]:
            leg = leg_of(forms, signals)
            if leg is None:  # the snapshot has nothing of the signal, such as vectors: no failure, and no report
                return {}
            legs.update(dict.fromkeys(signals, leg))
            if not leg.uses_other_candidates:
                return leg.search(request.candidates, allowed, EMPTY.rows)
            forms.weights()  # can need a request to the engine: done while the dense leg is still running
            return leg.search(request.candidates, allowed, others())

        usable = [signal for signal in proposing() if signal in request.signals]
        proposed, reports = retrieve(
            {signals: partial(search, signals) for signals in grouped(forms, usable)},
            (request.deadline_ms or self._settings.deadline_ms) / 1e3,
            self._pool,
        )
        return legs, proposed, reports

    def _rerank(
        self,
        snapshot: Snapshot,
        forms: QueryForms,
        scores: CompleteScores,
        documents: RankedDocuments,
        profile: RankingProfile,
        query: str,
        asked: RerankRequest,
    ) -> Reranked:
        """Re-rank the top documents with the cross-encoder, as many as its time budget allows."""

        def texts(columns: Sequence[int]) -> list[tuple[str, str]]:
            rows = scores.rows[np.array(columns, dtype=np.int64)]
            found = snapshot.reader.passages(rows)
            return [(found[row].heading, found[row].text) for row in rows.tolist()]

        return rerank(
            query, documents, asked, profile.cross_weight, self._encoders.cross, texts, self._recent,
            forms.token_idf,
        )  # fmt: skip


class _Clock:
    """Measures the milliseconds of each stage of a search."""

    def __init__(self) -> None:
        self.timings: dict[str, float] = {}
        self._last = time.perf_counter()

    def took(self, stage: str) -> None:
        """Record the time since the end of the previous stage as this stage's."""
        now = time.perf_counter()
        self.timings[stage] = (now - self._last) * 1e3
        self._last = now


def _allowed(snapshot: Snapshot, tree: Filter | None, request: SearchRequest) -> Selection | None:
    """The rows that pass the request's filter and entity filter; None without a filter."""
    use = request.entities
    if use is not None and use.entities and use.mode == "filter":
        wanted = _annotated([entity.id for entity in use.entities])
        tree = wanted if tree is None else And((tree, wanted))
    return snapshot.reader.select(tree) if tree is not None else None


def profile_for(profile: RankingProfile, request: SearchRequest) -> RankingProfile:
    """The collection's ranking profile, overridden by what the request sets."""
    changes: dict[str, Any] = {}
    if request.fusion is not None:
        changes["fusion"] = request.fusion
    if request.normalization is not None:
        changes["normalization"] = request.normalization
    if request.weights is not None:
        changes["weights"] = {signal: request.weights.get(signal, 0.0) for signal in proposing()}
    if len(request.signals) == 1 and request.weights is None:
        # With a single signal its weight does not matter, unless the profile has 0 for it.
        changes["weights"] = dict.fromkeys(request.signals, 1.0)
    if "weights" in changes:
        cross = (request.weights or {}).get(Signal.CROSS, profile.cross_weight)
        changes["weights"] = {**changes["weights"], Signal.CROSS: cross}
    if request.vdr is not None:
        changes["vdr"] = request.vdr
    return replace(profile, **changes, origin="request") if changes else profile


def _annotated(ids: Sequence[str]) -> Filter:
    """A filter for documents that are annotated with one of these entities."""
    return parse_filter({"terms": {LINKED_ENTITIES: list(ids)}})


def _distinct(terms: Sequence[str], limit: int) -> tuple[str, ...]:
    """The terms in order, repeats included, without terms beyond the first `limit` distinct ones."""
    kept: list[str] = []
    seen: set[str] = set()
    for term in terms:
        if term not in seen and len(seen) == limit:
            continue
        seen.add(term)
        kept.append(term)
    return tuple(kept)
