"""Detect the mentions of texts and retrieve the candidates of each, before disambiguation."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from hyblink.app.analysis.analyzer import Analyzer
from hyblink.app.core.budget import BUDGET, carried, check_budget, leave_out, linking_cost, uncharged
from hyblink.app.core.checks import fold
from hyblink.app.core.errors import EncoderUnavailableError, InvalidInputError, OverBudgetError
from hyblink.app.core.filters import parse_filter
from hyblink.app.core.ports.collections import Collections
from hyblink.app.core.ports.encoders import (
    InTextEncoder,
    JointDetector,
    MentionEncoder,
    SpanDetector,
)
from hyblink.app.core.ports.engine import OpenedCollection
from hyblink.app.core.ports.views import Snapshot
from hyblink.app.core.settings import LinkSettings
from hyblink.app.core.types.arrays import VectorArray
from hyblink.app.core.types.linking import (
    LINK_SIGNALS,
    LinkProfile,
    LinkRequest,
    Mention,
    MentionContext,
    Text,
)
from hyblink.app.core.types.ranking import Scored, Signal, VdrMode
from hyblink.app.encoders.pool import EncoderPool
from hyblink.app.linking.candidate_generation import Candidates, generate
from hyblink.app.linking.dictionary import Counts, Dictionaries, DictionaryView
from hyblink.app.linking.disambiguation import SHIPPED
from hyblink.app.linking.mention_detection import (
    DETECTORS,
    together,
    union,
    whole_characters,
)
from hyblink.app.linking.surface_forms import keys_of, ordinary
from hyblink.ranker.query_forms import AnalyzedQuery, QueryForms, vdr_mode

_TEXTS_TOGETHER = 16
"""Texts that detectors read together in a request with a budget."""
_DETECTION_SHARE = 0.5
"""The share of the request's budget that finding mentions may use; linking them has the rest."""
_CONTEXT_CHARS = 4000
_NEAR_CHARS = 150
"""How many characters on each side of a mention count as near it, for the context features."""


@dataclass(frozen=True, slots=True)
class Retrieved:
    """A mention with its context and candidates, before disambiguation. `evidence`: (entity id, share) pairs."""

    mention: Mention
    context: MentionContext
    candidates: Candidates
    evidence: tuple[tuple[str, float], ...] = ()


@dataclass(slots=True)
class LinkSession:
    """The state that all mentions of a request share: snapshot, dictionary, link profile, encoder.

    `missing` maps a signal that is not available to the reason. `timings` are milliseconds by stage.
    """

    opened: OpenedCollection
    dictionary: DictionaryView
    profile: LinkProfile
    encoder: MentionEncoder | InTextEncoder | None
    missing: dict[str, str]
    timings: dict[str, float]
    counts: Counts

    @property
    def snapshot(self) -> Snapshot:
        return self.opened.snapshot

    def took(self, stage: str, started: float) -> None:
        """Add the time since `started` (of `time.perf_counter()`) to a stage."""
        self.timings[stage] = self.timings.get(stage, 0.0) + (time.perf_counter() - started) * 1e3


class Retrieval:
    """Finds mentions and their candidates in a knowledge base. Safe to share between threads."""

    def __init__(self, collections: Collections, encoders: EncoderPool, settings: LinkSettings) -> None:
        self._collections = collections
        self._encoders = encoders
        self._settings = settings
        self._dictionaries = Dictionaries()
        self._counts: dict[str, tuple[str, Counts]] = {}
        self._pool = ThreadPoolExecutor(4, thread_name_prefix="hyblink-link")

    def close(self) -> None:
        """Stop the threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def open_session(self, collection: str) -> LinkSession:
        """Return the shared state for a new request on a collection, at its current snapshot."""
        with uncharged():  # what indexes have missed is caught up for all requests
            opened = self._collections.open(collection)
            record, snapshot = opened.engine.record, opened.snapshot
            dictionary = self._dictionaries.view(collection, record.id, snapshot)
        missing: dict[str, str] = {}
        encoder = None
        if snapshot.has_vectors:
            try:
                encoder = self._encoders.mention(record)
            except EncoderUnavailableError as error:
                missing[Signal.DENSE.value] = str(error)
        else:
            missing[Signal.DENSE.value] = "no entity has a vector yet"
        profile = self._collections.link_profile(collection) or SHIPPED
        return LinkSession(opened, dictionary, profile, encoder, missing, {}, self._counted(collection, profile))

    def _counted(self, collection: str, profile: LinkProfile) -> Counts:
        """The counts of judged name meanings by name key, read again when the profile's counts have changed."""
        if not profile.counted:
            return {}
        known = self._counts.get(collection)
        if known is None or known[0] != profile.counted:
            made: dict[int, dict[str, float]] = {}
            for name, meant in self._collections.name_counts(collection).names.items():
                keys = keys_of(name)
                own = made.setdefault(keys.folded, {}) if keys is not None else {}
                for doc_id, times in meant.items():  # names that fold to the same key are added up
                    own[doc_id] = own.get(doc_id, 0.0) + times
            known = self._counts[collection] = (profile.counted, made)
        return known[1]

    def mentions(self, session: LinkSession, texts: Sequence[Text], request: LinkRequest) -> list[list[Mention]]:
        """Return the mentions of each text: the given ones, or those that the detectors find in texts without.

        They do not overlap, unless the request uses joint probabilities (`joint`).
        """
        made = [[Mention(a, b, item.text[a:b]) for a, b in item.mentions or ()] for item in texts]
        unmarked = [at for at, item in enumerate(texts) if item.mentions is None]
        if not unmarked:
            return made
        names = self._settings.detectors if request.detectors is None else request.detectors
        if not names:
            raise InvalidInputError("no detector", received=list(names), expected=f"some of {', '.join(DETECTORS)}")
        detectors = [None if name == "dictionary" else self._encoders.span_detector(name) for name in names]
        step = len(unmarked) if BUDGET.get() is None else _TEXTS_TOGETHER
        with linking_cost(_DETECTION_SHARE):
            for first in range(0, len(unmarked), step):
                part = unmarked[first : first + step]
                try:
                    found = self._detected(session, [texts[at].text for at in part], request, detectors)
                except OverBudgetError:
                    leave_out(f"mentions in the texts from texts[{part[0]}] on: send fewer or shorter texts")
                    break
                for at, own in zip(part, found, strict=True):
                    made[at] = own
        return made

    def _detected(
        self,
        session: LinkSession,
        texts: Sequence[str],
        request: LinkRequest,
        detectors: Sequence[SpanDetector | None],
    ) -> list[list[Mention]]:
        """The mentions that the detectors (None: the dictionary) find together in each text."""
        found: list[list[list[Mention]]] = []
        for detector in detectors:
            if detector is None:
                found.append([session.dictionary.detect(text) for text in texts])
            elif request.joint is not None and isinstance(detector, JointDetector):
                found.append(detector.possible(texts, self._settings.span_floor))
            else:
                found.append(detector.detect(texts))
        made = []
        for text, own in zip(texts, zip(*found, strict=True), strict=True):
            whole = [[mention for mention in (_of_whole_characters(text, m) for m in part) if mention] for part in own]
            made.append(union(whole) if request.joint is None else together(whole))
        return made

    def retrieve(
        self, session: LinkSession, request: LinkRequest, items: Sequence[tuple[Text, Mention]]
    ) -> list[Retrieved]:
        """Retrieve the candidates of each (text, mention), in order."""
        if not items:
            return []
        before = time.perf_counter()
        mentions = [mention for _, mention in items]
        contexts = [_context(text.text, mention) for text, mention in items]
        vectors: Sequence[VectorArray | None] = [None] * len(mentions)
        if session.encoder is not None:
            if isinstance(session.encoder, InTextEncoder):
                vectors = list(session.encoder.encode_spans([(text.text, m.start, m.end) for text, m in items]))
            else:
                vectors = list(session.encoder.encode(contexts))
        session.took("encode", before)
        before = time.perf_counter()
        snapshot, record = session.snapshot, session.opened.engine.record
        counted = [text.counted for text, _ in items]
        priors = session.dictionary.priors([m.text for m in mentions], session.counts, counted)
        allowed = snapshot.reader.select(parse_filter(request.filter)) if request.filter is not None else None
        excluded = {text.exclude for text, _ in items}
        own = {ids: _keys(snapshot, (*request.exclude, *ids)) for ids in excluded}
        analyzer = Analyzer(record.analyzer)
        bag = self._encoders.bag(record.vdr_encoder)
        full = self._encoders.hybrid_encoder(record) if snapshot.vdr is not None else None
        mode: VdrMode = "bag" if full is None else vdr_mode("auto", snapshot, self._encoders.best_vdr_mode(record))
        if mode in {"full", "beta"}:  # the query is only a name: do not run the encoder for it
            mode = "alpha" if mode == "full" else "bag"
        k = request.candidates or self._settings.candidates

        def candidates_of(item: tuple[Text, Mention], vector: VectorArray | None, prior: Scored) -> Candidates:
            check_budget()
            text, mention = item
            name = fold(mention.text)
            terms = tuple(dict.fromkeys(analyzer.terms(name)))[: self._settings.max_mention_terms]
            near = _near(text.text, mention)
            context = [term for term in dict.fromkeys(analyzer.terms(near)) if term not in terms]
            forms = QueryForms(snapshot, AnalyzedQuery(name, terms), bag, full, mode, self._settings.max_mention_terms)
            return generate(
                snapshot, forms, vector, prior, session.profile.retrieval, k,
                allowed=allowed, exclude=own[text.exclude], signals=request.signals or LINK_SIGNALS,
                context=context, around=near, ordinary=ordinary(mention.text),
            )  # fmt: skip

        if len(items) == 1:
            made = [candidates_of(items[0], vectors[0], priors[0])]
        else:
            made = list(self._pool.map(carried(candidates_of), items, vectors, priors))
        session.took("candidates", before)
        evidence = [text.evidence for text, _ in items]
        return [Retrieved(*parts) for parts in zip(mentions, contexts, made, evidence, strict=True)]


def _keys(snapshot: Snapshot, ids: Sequence[str]) -> list[int]:
    rows = [snapshot.reader.document_rows(item) for item in ids]
    found = np.concatenate(rows) if rows else np.zeros(0, dtype=np.int64)
    return sorted(set(snapshot.reader.document_keys(found).tolist())) if len(found) else []


def _of_whole_characters(text: str, mention: Mention) -> Mention | None:
    """The mention, if its span splits no character. A model's span is extended; a dictionary match is dropped."""
    start, end = whole_characters(text, mention.start, mention.end)
    if (start, end) == (mention.start, mention.end):
        return mention
    return None if mention.detector == "dictionary" else replace(mention, start=start, end=end, text=text[start:end])


def _near(text: str, mention: Mention) -> str:
    """The folded text near a mention, without the mention itself."""
    return fold(
        f"{text[max(0, mention.start - _NEAR_CHARS) : mention.start]} {text[mention.end : mention.end + _NEAR_CHARS]}"
    )


def _context(text: str, mention: Mention) -> MentionContext:
    left = text[max(0, mention.start - _CONTEXT_CHARS) : mention.start]
    return MentionContext(left, mention.text, text[mention.end : mention.end + _CONTEXT_CHARS])
