"""The search use case: query → legs → complete scores → fusion → documents; and "why not this one?"."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol, get_args

import numpy as np
import numpy.typing as npt

from hyblink.app.analysis.analyzer import Analyzer
from hyblink.app.core.checks import check_text, fold
from hyblink.app.core.errors import EncoderUnavailableError, InvalidInputError, NotFoundError
from hyblink.app.core.filters import And, Filter, parse_filter
from hyblink.app.core.ports.encoders import BagEncoder, CrossEncoder, EncodedPassages, EncodedQuery, FullEncoder
from hyblink.app.core.ports.engine import Engine, Present
from hyblink.app.core.ports.store import Selection
from hyblink.app.core.ports.views import Snapshot
from hyblink.app.core.settings import SearchSettings
from hyblink.app.core.types.arrays import ScoreArray, TermWeights
from hyblink.app.core.types.collections import GenerationRecord
from hyblink.app.core.types.documents import DocId, Metadata, Passage
from hyblink.app.core.types.ranking import (
    EMPTY,
    FIRST_RANK,
    RankingProfile,
    RerankReport,
    Scored,
    Signal,
    SignalValue,
    TokenContribution,
    VdrMode,
)
from hyblink.app.core.types.search import (
    LINKED_ENTITIES,
    FacetCount,
    Hit,
    LegReport,
    PassageHit,
    SearchRequest,
    SearchResult,
)
from hyblink.app.core.weights import heaviest
from hyblink.ranker.collapse import RankedDocuments, collapse
from hyblink.ranker.complete import CompleteScores, FusedScores, complete, fuse
from hyblink.ranker.explain import highlights, ledger, token_contributions
from hyblink.ranker.fusion import FUSIONS
from hyblink.ranker.leg import Leg
from hyblink.ranker.normalization import NORMALIZATIONS
from hyblink.ranker.query_forms import AnalyzedQuery, QueryForms, vdr_mode
from hyblink.ranker.rerank import CrossScore, RecentScores, Reranked, rerank
from hyblink.ranker.retrieve import Others, retrieve
from hyblink.ranker.signals.entity import entity_leg
from hyblink.ranker.signals.registry import SIGNALS, grouped, leg_of, proposing

_MAX_FACET_VALUES = 20
_MAX_FACETS = 20
_MAX_PASSAGES = 20


class Collections(Protocol):
    """What the use case needs to know of collections; the catalog is one."""

    def present(self, name: str, generation: str | None = None) -> Present: ...


class Encoders(Protocol):
    """The encoders that a generation names. `vdr_mode` is what its VDR encoder does best."""

    def full(self, record: GenerationRecord) -> FullEncoder: ...

    def vdr_mode(self, record: GenerationRecord) -> VdrMode: ...

    def bag(self, encoder_id: str) -> BagEncoder: ...

    def cross(self) -> CrossEncoder: ...


class Absent:
    """Stands for encoders that cannot be loaded: whoever needs them is told why."""

    def __init__(self, error: EncoderUnavailableError) -> None:
        self._error = error

    def encode_query(self, text: str) -> EncodedQuery:  # noqa: ARG002
        raise self._error

    def encode_queries(self, texts: Sequence[str]) -> list[EncodedQuery]:  # noqa: ARG002
        raise self._error

    def encode_passages(self, titles: Sequence[str], texts: Sequence[str]) -> EncodedPassages:  # noqa: ARG002
        raise self._error

    def prior_idf(self, ids: npt.NDArray[np.int32]) -> ScoreArray | None:  # noqa: ARG002
        raise self._error


@dataclass(frozen=True, slots=True)
class LegStanding:
    """Where a document stands in one leg: its best passage's exact score and rank among all passages."""

    signal: Signal
    score: float | None
    rank: int | None
    depth: int
    proposed: bool


@dataclass(frozen=True, slots=True)
class WhyNot:
    """Why a document is where it is. `lost_at` is one of `filter`, `candidates`, `page`, `nothing` (it is shown)."""

    doc_id: str
    generation: str
    lost_at: str
    explanation: str
    passes_filter: bool
    rank: int | None
    score: float | None
    last_shown_score: float | None
    legs: tuple[LegStanding, ...]
    signals: tuple[SignalValue, ...]


@dataclass(frozen=True, slots=True)
class VocabularyToken:
    """A token and its weight; `own` where the text contains it."""

    token: str
    weight: float
    own: bool


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A text read out over the vocabulary, heaviest first, and what it shares with a passage; `score` sums it."""

    generation: str
    mode: VdrMode
    as_query: tuple[VocabularyToken, ...]
    as_passage: tuple[VocabularyToken, ...]
    shared: tuple[TokenContribution, ...]
    score: float


@dataclass(frozen=True, slots=True)
class _Ranked:
    """A search up to the ranked documents, before a page is cut."""

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

    def score(self, column: int) -> float:
        """A candidate's score, with what re-ranking added."""
        line = self.cross.get(column)
        return float(self.fused.scores_C[column]) + (line.contribution if line else 0.0)

    def ledger(self, column: int) -> tuple[SignalValue, ...]:
        """A candidate's lines; they sum to its score."""
        return ledger(self.fused, column, self.profile, self.cross.get(column))


def check_request(request: SearchRequest, settings: SearchSettings) -> Filter | None:
    """Check every range of the request; the parsed filter. Raises InvalidInputError."""

    def within(name: str, value: object, low: int, high: int) -> None:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise InvalidInputError(f"{name} is out of range", received=value, expected=f"{low} to {high}")

    check_text(request.query, "query")
    if not request.query.strip():
        raise InvalidInputError("the query is empty", received=request.query, expected="at least one character")
    if len(request.query) > settings.max_query_chars:
        raise InvalidInputError(
            "the query is too long",
            received=f"{len(request.query)} characters",
            expected=f"at most {settings.max_query_chars}",
        )
    within("candidates", request.candidates, 1, settings.max_candidates)
    within("k", request.k, 1, request.candidates)
    within("offset", request.offset, 0, request.candidates)
    if request.offset + request.k > request.candidates:
        raise InvalidInputError(
            "the page lies beyond the candidates",
            received=f"offset {request.offset} + k {request.k}",
            expected=f"at most candidates = {request.candidates}; ask for more candidates",
        )
    within("passages_per_document", request.passages_per_document, 1, _MAX_PASSAGES)
    if len(request.facets) > _MAX_FACETS:
        raise InvalidInputError("too many facets", received=len(request.facets), expected=f"at most {_MAX_FACETS}")
    if (
        not request.signals
        or len(set(request.signals)) != len(request.signals)
        or not set(request.signals) <= set(proposing())
    ):
        raise InvalidInputError(
            "bad signals",
            received=[str(s) for s in request.signals],
            expected=f"some of {', '.join(proposing())}, each once",
        )
    if request.deadline_ms is not None and not 0 < request.deadline_ms <= settings.deadline_ms:
        raise InvalidInputError(
            "deadline_ms is out of range",
            received=request.deadline_ms,
            expected=f"above 0, to {settings.deadline_ms}",
        )
    if request.fusion is not None and request.fusion not in FUSIONS:
        raise InvalidInputError("unknown fusion", received=request.fusion, expected=f"one of {', '.join(FUSIONS)}")
    if request.vdr is not None and request.vdr not in get_args(VdrMode):
        raise InvalidInputError("unknown VDR mode", received=request.vdr, expected=", ".join(get_args(VdrMode)))
    if request.normalization is not None and request.normalization not in NORMALIZATIONS:
        raise InvalidInputError(
            "unknown normalization",
            received=request.normalization,
            expected=f"one of {', '.join(NORMALIZATIONS)}",
        )
    if request.weights is not None:
        check_weights(request.weights)
    if request.entities is not None and not 0 <= request.entities.weight <= 100:
        raise InvalidInputError(
            "entities.weight is out of range", received=request.entities.weight, expected="0 to 100"
        )
    if request.rerank is not None:
        within("rerank.top", request.rerank.top, 1, settings.max_rerank)
        if not 0 < request.rerank.budget_ms <= settings.deadline_ms:
            raise InvalidInputError(
                "rerank.budget_ms is out of range",
                received=request.rerank.budget_ms,
                expected=f"above 0, to {settings.deadline_ms}",
            )
    return None if request.filter is None else parse_filter(request.filter)


def check_weights(weights: Mapping[Signal, float]) -> None:
    """Raises InvalidInputError unless every weight is finite, none is negative and one is above 0."""
    for signal, weight in weights.items():
        SIGNALS.of(signal)
        if not math.isfinite(weight) or weight < 0 or weight > 1e6:
            raise InvalidInputError(
                f"the weight of {signal} is out of range",
                received=weight,
                expected="a number from 0 to 1,000,000",
            )
    if not any(weight for signal, weight in weights.items() if signal in proposing()):
        raise InvalidInputError("no weight is above 0", received=dict(weights), expected="at least one")


class SearchService:
    """Answers searches. Safe to share between threads."""

    def __init__(self, collections: Collections, encoders: Encoders, settings: SearchSettings) -> None:
        self._collections = collections
        self._encoders = encoders
        self._settings = settings
        self._recent = RecentScores()
        # Legs of several searches at once share these threads; the work inside them releases the interpreter lock.
        self._pool = ThreadPoolExecutor(16, thread_name_prefix="hyblink-leg")

    def close(self) -> None:
        """Stop the leg threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    @staticmethod
    def _profile(profile: RankingProfile, request: SearchRequest) -> RankingProfile:
        changes: dict[str, Any] = {}
        if request.fusion is not None:
            changes["fusion"] = request.fusion
        if request.normalization is not None:
            changes["normalization"] = request.normalization
        if request.weights is not None:
            changes["weights"] = {signal: request.weights.get(signal, 0.0) for signal in proposing()}
        if len(request.signals) == 1 and request.weights is None:
            # One leg alone: its own order, whatever the profile's weight for it.
            changes["weights"] = dict.fromkeys(request.signals, 1.0)
        if "weights" in changes:
            cross = (request.weights or {}).get(Signal.CROSS, profile.cross_weight)
            changes["weights"] = {**changes["weights"], Signal.CROSS: cross}
        if request.vdr is not None:
            changes["vdr"] = request.vdr
        return replace(profile, **changes, origin="request") if changes else profile

    def _rank(self, collection: str, request: SearchRequest, extra_document: str | None = None) -> _Ranked:
        started = time.perf_counter()
        tree = check_request(request, self._settings)
        present = self._collections.present(collection, request.generation)
        engine, snapshot = present.engine, present.snapshot
        record = engine.record
        profile = self._profile(present.profile, request)
        timings = {"snapshot": (time.perf_counter() - started) * 1e3}
        query = fold(request.query)
        terms = _distinct(Analyzer(record.analyzer).terms(query), self._settings.max_query_terms)
        dense = snapshot.dense is not None and snapshot.dense.vectors > 0
        encoder: FullEncoder | None = None
        asked: VdrMode = profile.vdr
        best: VdrMode = "bag"
        try:
            encoder = self._encoders.full(record) if dense or snapshot.vdr is not None else None
            best = self._encoders.vdr_mode(record)
        except EncoderUnavailableError as error:
            # What needs the encoder says so; words and bags of tokens answer.
            encoder = Absent(error)
            asked = request.vdr or "auto"
        bag = self._encoders.bag(record.vdr_encoder)
        mode = vdr_mode(asked, snapshot, best)
        forms = QueryForms(snapshot, AnalyzedQuery(query, terms), bag, encoder, mode, self._settings.query_weights)
        if request.entities is not None and request.entities.entities and request.entities.mode == "filter":
            wanted = _annotated([one.id for one in request.entities.entities])
            tree = wanted if tree is None else And((tree, wanted))
        allowed = snapshot.reader.select(tree) if tree is not None else None
        timings["filter"] = (time.perf_counter() - started) * 1e3 - timings["snapshot"]

        legs: dict[Signal, Leg] = {}

        def search(signals: tuple[Signal, ...], others: Others) -> Mapping[Signal, Scored]:
            leg = leg_of(forms, signals)
            legs.update(dict.fromkeys(signals, leg))
            if not leg.waits:
                return leg.search(request.candidates, allowed, EMPTY.rows)
            forms.weights()  # may take a request of its own: made while the dense leg is still at work
            return leg.search(request.candidates, allowed, others())

        usable = [s for s in proposing() if s in request.signals and (s is not Signal.DENSE or dense)]
        before = time.perf_counter()
        proposed, reports = retrieve(
            {signals: partial(search, signals) for signals in grouped(forms, usable)},
            (request.deadline_ms or self._settings.deadline_ms) / 1e3,
            self._pool,
        )
        use = request.entities
        if use is not None and use.entities and use.mode == "boost":
            boosting = entity_leg([(snapshot.reader.select(_annotated([e.id])), e.probability) for e in use.entities])
            proposed |= boosting.search(request.candidates, allowed, EMPTY.rows)
            legs[Signal.ENTITY] = boosting
            usable.append(Signal.ENTITY)
            profile = replace(profile, weights={**profile.weights, Signal.ENTITY: use.weight})
        timings["legs"] = (time.perf_counter() - before) * 1e3
        timings["encode_query"] = forms.encode_ms
        before = time.perf_counter()
        extra = snapshot.reader.document_rows(extra_document) if extra_document is not None else None
        answered = {signal: legs[signal] for signal in usable if signal in proposed}
        scores = complete(answered, proposed, extra, self._pool)
        timings["complete"] = (time.perf_counter() - before) * 1e3
        before = time.perf_counter()
        fused = fuse(scores, profile)
        documents = collapse(fused, snapshot.reader.document_keys(scores.rows), snapshot.reader.doc_ids)
        timings["fuse"] = (time.perf_counter() - before) * 1e3
        reranked = Reranked(documents)
        if request.rerank is not None:
            before = time.perf_counter()

            def texts(columns: Sequence[int]) -> list[tuple[str, str]]:
                rows = scores.rows[np.array(columns, dtype=np.int64)]
                found = snapshot.reader.passages(rows)
                return [(found[row].title, found[row].text) for row in rows.tolist()]

            reranked = rerank(
                request.query, documents, request.rerank, profile.cross_weight, self._encoders.cross, texts,
                self._recent, forms.token_idf,
            )  # fmt: skip
            timings["rerank"] = (time.perf_counter() - before) * 1e3
        return _Ranked(
            engine, snapshot, forms, answered, proposed, reports, fused, reranked.documents, profile, allowed, timings,
            reranked.lines, reranked.report,
        )  # fmt: skip

    def search(self, collection: str, request: SearchRequest) -> SearchResult:
        """One page of results. Raises UserError for a bad request, UnavailableError where no leg could answer."""
        started = time.perf_counter()
        ranked = self._rank(collection, request)
        before = time.perf_counter()
        page = range(request.offset, min(request.offset + request.k, len(ranked.documents)))
        hits = self._hits(ranked, page, request)
        facets = self._facets(ranked, request.facets)
        ranked.timings["present"] = (time.perf_counter() - before) * 1e3
        ranked.timings["total"] = (time.perf_counter() - started) * 1e3
        answered = set(ranked.proposed)
        return SearchResult(
            hits,
            len(ranked.fused.complete.rows),
            len(ranked.documents),
            ranked.engine.record.id,
            ranked.snapshot.change,
            ranked.profile,
            ranked.reports,
            tuple(signal for signal in request.signals if signal not in answered),  # the reports say why
            facets,
            {name: round(value, 3) for name, value in ranked.timings.items()},
            ranked.rerank,
            request.entities.entities if request.entities is not None else (),
        )

    def vocabulary(self, collection: str, text: str, passage: str | None = None, top: int = 50) -> Vocabulary:
        """What the VDR signal makes of a text, as a query and as a passage; with `passage`, what the two share.

        Raises InvalidInputError for an empty text.
        """
        for name, value in (("text", text), ("passage", passage)):
            if value is not None and not check_text(value, name).strip():
                raise InvalidInputError(f"the {name} is empty", received=value, expected="at least one character")
            if value is not None and len(value) > self._settings.max_vocabulary_chars:
                raise InvalidInputError(
                    f"the {name} is too long",
                    received=f"{len(value)} characters",
                    expected=f"at most {self._settings.max_vocabulary_chars}",
                )
        present = self._collections.present(collection)
        record, snapshot = present.engine.record, present.snapshot
        bag = self._encoders.bag(record.vdr_encoder)
        encoder = self._encoders.full(record) if snapshot.vdr is not None else None
        mode = self._encoders.vdr_mode(record)
        forms = QueryForms(snapshot, AnalyzedQuery(fold(text), ()), bag, encoder, mode, top)
        query = forms.weights()

        def of_passage(content: str) -> TermWeights:
            if encoder is None:
                return bag.encode_passages([content])[0]
            return encoder.encode_passages([""], [content]).weights[0]

        def weighed(terms: TermWeights, own: set[int]) -> tuple[VocabularyToken, ...]:
            best = heaviest(terms, top)
            order = np.argsort(-best.weights, kind="stable").tolist()
            return tuple(
                VocabularyToken(bag.token(int(best.ids[at])), float(best.weights[at]), int(best.ids[at]) in own)
                for at in order
            )

        shared: tuple[TokenContribution, ...] = ()
        if passage is not None:
            against = of_passage(fold(passage))
            both, mine, theirs = np.intersect1d(query.ids, against.ids, return_indices=True)
            pairs = zip(both.tolist(), query.weights[mine].tolist(), against.weights[theirs].tolist(), strict=True)
            found = [TokenContribution(bag.token(token), q * p, q, p) for token, q, p in pairs]
            shared = tuple(sorted(found, key=lambda one: (-one.contribution, one.token)))
        own = set(bag.encode_query(fold(text)))
        return Vocabulary(
            record.id, mode, weighed(query, own), weighed(of_passage(fold(text)), own), shared,
            sum(one.contribution for one in shared),
        )  # fmt: skip

    def pool(self, collection: str, request: SearchRequest) -> tuple[CompleteScores, list[str]]:
        """The candidates' complete scores and the id of each one's document: what tuning works on."""
        ranked = self._rank(collection, request)
        scores, reader = ranked.fused.complete, ranked.snapshot.reader
        return scores, reader.doc_ids(reader.document_keys(scores.rows))

    def _hits(self, ranked: _Ranked, page: range, request: SearchRequest) -> tuple[Hit, ...]:
        keys = ranked.documents.keys_D[page.start : page.stop]
        shown = [ranked.documents.columns(at)[: request.passages_per_document] for at in page]
        columns = [column for own in shown for column in own]
        rows = ranked.fused.complete.rows[np.array(columns, dtype=np.int64)]
        place = {column: at for at, column in enumerate(columns)}
        reader = ranked.snapshot.reader
        passages = reader.passages(rows)
        doc_ids, metadata = reader.doc_ids(keys), reader.metadata(keys)
        bag = self._encoders.bag(ranked.engine.record.vdr_encoder)
        analyzer = Analyzer(ranked.engine.record.analyzer)
        tokens = (
            {s: token_contributions(ranked.forms, rows, s, bag) for s in ranked.fused.complete.signals}
            if request.explain
            else {}
        )
        if request.explain and ranked.cross:
            tokens[Signal.CROSS] = self._cross_tokens(
                ranked, [passages[row] for row in rows.tolist()], columns, request
            )
        hits = []
        for at, doc_id, data, own in zip(page, doc_ids, metadata, shown, strict=True):
            passage_hits = []
            for column in own:
                passage = passages[int(ranked.fused.complete.rows[column])]
                lines = ranked.ledger(column)
                if tokens:
                    own_tokens = {signal: found[place[column]] for signal, found in tokens.items()}
                    lines = tuple(replace(line, tokens=own_tokens.get(line.signal, ())) for line in lines)
                passage_hits.append(
                    PassageHit(
                        passage.id,
                        passage.ordinal,
                        passage.start,
                        passage.end,
                        passage.text,
                        ranked.score(column),
                        passage.tier,
                        lines,
                        highlights(analyzer, ranked.forms.query.terms, passage.text) if request.highlight else (),
                    )
                )
            title = passages[int(ranked.fused.complete.rows[own[0]])].title
            score = float(ranked.documents.scores_D[at])
            hits.append(Hit(at + FIRST_RANK, DocId(doc_id), title, score, data, tuple(passage_hits)))
        return tuple(hits)

    def _cross_tokens(
        self, ranked: _Ranked, passages: Sequence[Passage], columns: Sequence[int], request: SearchRequest
    ) -> list[tuple[TokenContribution, ...]]:
        """What the re-ranker says of its score of each passage that it scored; nothing where it fails now."""
        found: list[tuple[TokenContribution, ...]] = []
        idf = ranked.forms.token_idf() if ranked.cross else None
        for column, passage in zip(columns, passages, strict=True):
            own: tuple[TokenContribution, ...] = ()
            if column in ranked.cross:
                with suppress(EncoderUnavailableError):
                    own = self._encoders.cross().contributions(request.query, passage.title, passage.text, idf)
            found.append(tuple(sorted(own, key=lambda one: -one.contribution)))
        return found

    @staticmethod
    def _facets(ranked: _Ranked, keys: Sequence[str]) -> dict[str, tuple[FacetCount, ...]]:
        if not keys:
            return {}
        reader = ranked.snapshot.reader
        metadata = reader.metadata(ranked.documents.keys_D)
        return {key: _count(key, metadata) for key in keys}

    def why_not(self, collection: str, request: SearchRequest, doc_id: str) -> WhyNot:
        """Where a document was lost, and at which rank. Raises NotFoundError where there is no such document."""
        check_text(doc_id, "document id")
        ranked = self._rank(collection, request, extra_document=doc_id)
        reader = ranked.snapshot.reader
        rows = reader.document_rows(doc_id)
        if not len(rows):
            raise NotFoundError("no such document", received=doc_id)
        passes = ranked.allowed is None or bool(ranked.allowed.contains(rows).any())
        standings = []
        for signal, leg in ranked.legs.items():
            scores = leg.score(rows)[signal]
            best = None if np.isnan(scores).all() else int(np.nanargmax(scores))
            standings.append(
                LegStanding(
                    signal,
                    None if best is None else float(scores[best]),
                    None if best is None else leg.rank(signal, int(rows[best])),
                    request.candidates,
                    bool(np.isin(rows, ranked.proposed[signal].rows).any()),
                )
            )
        # A document that the filter drops is ranked here all the same, to say where it would stand.
        documents = ranked.documents
        place = int(np.flatnonzero(documents.keys_D == reader.document_keys(rows)[0])[0])
        rank = place + FIRST_RANK
        last = request.offset + request.k
        bar = float(documents.scores_D[min(last, len(documents)) - 1])
        proposed = any(standing.proposed for standing in standings)
        if not passes:
            lost, said = (
                "filter",
                f"the filter leaves it out; without the filter it would stand at rank {rank}",
            )
        elif not proposed:
            ranks = ", ".join(f"{s.signal} rank {s.rank or 'none'}" for s in standings)
            lost = "candidates"
            said = f"no leg proposed it among its {request.candidates} candidates ({ranks}); "
            said += f"with them it would stand at rank {rank}"
        elif rank > last:
            lost, said = "page", f"it stands at rank {rank}; the page ends at {last}"
        elif rank <= request.offset:
            lost, said = "page", f"it stands at rank {rank}; the page begins at {request.offset + FIRST_RANK}"
        else:
            lost, said = "nothing", f"it is shown, at rank {rank}"
        return WhyNot(
            doc_id,
            ranked.engine.record.id,
            lost,
            said,
            passes,
            rank,
            float(documents.scores_D[place]),
            bar,
            tuple(standings),
            ranked.ledger(documents.columns(place)[0]),
        )


def _count(key: str, rows: Sequence[Metadata]) -> tuple[FacetCount, ...]:
    counts: Counter[str] = Counter()
    for metadata in rows:
        value = metadata.get(key)
        if value is None:
            continue
        for one in value if isinstance(value, list) else [value]:
            counts[("true" if one else "false") if isinstance(one, bool) else str(one)] += 1
    best = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:_MAX_FACET_VALUES]
    return tuple(FacetCount(value, count) for value, count in best)


def _annotated(ids: Sequence[str]) -> Filter:
    """Documents that were annotated with one of these entities."""
    return parse_filter({"terms": {LINKED_ENTITIES: list(ids)}})


def _distinct(terms: Sequence[str], limit: int) -> tuple[str, ...]:
    """The terms with repeats kept, cut after `limit` distinct ones."""
    kept: list[str] = []
    seen: set[str] = set()
    for term in terms:
        if term not in seen and len(seen) == limit:
            continue
        seen.add(term)
        kept.append(term)
    return tuple(kept)
