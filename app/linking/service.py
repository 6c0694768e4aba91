"""The linking use case: texts → mentions → candidates → disambiguation → links, by one generation."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from hyblink.app.analysis.analyzer import Analyzer
from hyblink.app.core.checks import check_text, fold
from hyblink.app.core.errors import EncoderUnavailableError, InvalidInputError, TooLargeError
from hyblink.app.core.filters import parse_filter
from hyblink.app.core.ports.encoders import (
    BagEncoder,
    EntityCross,
    FullEncoder,
    InTextEncoder,
    JointDetector,
    MentionEncoder,
    SpanDetector,
)
from hyblink.app.core.ports.engine import Present
from hyblink.app.core.ports.views import Snapshot
from hyblink.app.core.settings import LinkSettings
from hyblink.app.core.types.arrays import VectorArray
from hyblink.app.core.types.collections import GenerationRecord
from hyblink.app.core.types.linking import (
    LINK_SIGNALS,
    Candidate,
    CrossReport,
    Link,
    LinkedText,
    LinkProfile,
    LinkRequest,
    LinkResult,
    Mention,
    MentionContext,
    NameCounts,
    Text,
    Utility,
    apart,
)
from hyblink.app.core.types.ranking import Scored, Signal, VdrMode
from hyblink.app.linking.candidate_generation import Candidates, generate
from hyblink.app.linking.dictionary import Counts, Dictionaries, DictionaryView
from hyblink.app.linking.disambiguation import SHIPPED, Decided, Floats, coherence, decide, ledger
from hyblink.app.linking.knowledge_base import description_of
from hyblink.app.linking.mention_detection import (
    DETECTORS,
    Detection,
    splits_a_character,
    together,
    union,
    whole_characters,
)
from hyblink.app.linking.surface_forms import keys_of, ordinary
from hyblink.ranker.query_forms import AnalyzedQuery, QueryForms, vdr_mode

_SHOWN_CHARS = 300
_CONTEXT_CHARS = 4000
_NEAR_CHARS = 150
"""Characters on each side of a mention whose words are looked for in its candidates."""
_BLOCK = 256
"""Mentions whose candidates are held at once."""


class Collections(Protocol):
    """What the use case needs to know of collections; the catalog is one."""

    def present(self, name: str) -> Present: ...

    def link_profile(self, name: str) -> LinkProfile | None: ...

    def name_counts(self, name: str) -> NameCounts: ...


class Encoders(Protocol):
    """The encoders that linking uses."""

    def full(self, record: GenerationRecord) -> FullEncoder: ...

    def vdr_mode(self, record: GenerationRecord) -> VdrMode: ...

    def bag(self, encoder_id: str) -> BagEncoder: ...

    def mention(self, record: GenerationRecord) -> MentionEncoder | InTextEncoder: ...

    def entity_cross(self) -> EntityCross: ...

    def span_detector(self, name: str) -> SpanDetector: ...


@dataclass(frozen=True, slots=True)
class Retrieved:
    """A mention with its candidates, before anything is decided."""

    mention: Mention
    context: MentionContext
    candidates: Candidates
    evidence: tuple[tuple[str, float], ...] = ()


@dataclass(slots=True)
class _Moment:
    """What all mentions of a request share."""

    present: Present
    dictionary: DictionaryView
    profile: LinkProfile
    encoder: MentionEncoder | InTextEncoder | None
    missing: dict[str, str]
    timings: dict[str, float]
    counts: Counts

    @property
    def snapshot(self) -> Snapshot:
        return self.present.snapshot

    def took(self, stage: str, started: float) -> None:
        self.timings[stage] = self.timings.get(stage, 0.0) + (time.perf_counter() - started) * 1e3


class LinkService:
    """Links texts. Safe to share between threads."""

    def __init__(self, collections: Collections, encoders: Encoders, settings: LinkSettings) -> None:
        self._collections = collections
        self._encoders = encoders
        self._settings = settings
        self._dictionaries = Dictionaries()
        self._counts: dict[str, tuple[str, Counts]] = {}
        self._pool = ThreadPoolExecutor(4, thread_name_prefix="hyblink-link")

    def close(self) -> None:
        """Stop the threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def link(self, collection: str, request: LinkRequest) -> LinkResult:
        """Links of every text. Raises UserError for a bad request."""
        started = time.perf_counter()
        self.check(request)
        moment = self._moment(collection)
        limit = self._settings
        found = self._mentions(moment, request.texts, request)
        moment.took("mentions", started)
        total = sum(len(mentions) for mentions in found)
        if total > limit.max_mentions:
            raise TooLargeError("too many mentions", received=total, expected=f"at most {limit.max_mentions}")
        rerank = limit.rerank if request.rerank is None else request.rerank
        cross, report = self._cross(moment) if rerank and total else (None, None)
        budget = (limit.rerank_budget_ms if request.budget_ms is None else request.budget_ms) / 1e3
        deadline = time.perf_counter() + budget
        scored = skipped = 0
        cross_s = 0.0
        links: list[list[Link]] = [[] for _ in request.texts]
        for block in _blocks(request.texts, found):
            retrieved = self._retrieve(moment, request, [item for _, items in block for item in items])
            extras: list[dict[Signal, Floats]] = [{} for _ in retrieved]
            if cross is not None:
                before = time.perf_counter()
                done = self._read_together(moment, cross, retrieved, extras, deadline)
                scored, skipped = scored + done, skipped + len(retrieved) - done
                cross_s += time.perf_counter() - before
            before = time.perf_counter()
            at = 0
            for number, items in block:  # neighbours are those of the same text
                part = slice(at, at + len(items))
                links[number] += self._decided(moment, request, retrieved[part], extras[part])
                at += len(items)
            moment.took("decide", before)
        if request.joint is not None:
            links = [
                _jointly(own, request.joint) if text.mentions is None else own
                for text, own in zip(request.texts, links, strict=True)
            ]
        if cross is not None:
            error = moment.missing.get(Signal.CROSS.value, "")
            report = CrossReport(cross.id, scored, skipped, round(cross_s * 1e3, 3), error)
            moment.timings["cross"] = cross_s * 1e3
        moment.timings["total"] = (time.perf_counter() - started) * 1e3
        record = moment.present.engine.record
        fitted = moment.encoder.id if moment.encoder else ""
        utility, threshold = _deciding(moment.profile, scored > 0)
        added = bool(request.coherence or request.evidence)
        among = request.signals is None and request.filter is None
        as_fitted = moment.profile.mention_encoder == fitted and not added and among
        return LinkResult(
            tuple(LinkedText(tuple(own)) for own in links),
            record.id,
            moment.snapshot.change,
            moment.profile.version,
            bool(utility.knots) and as_fitted,
            threshold if request.threshold is None else request.threshold,
            fitted,
            moment.missing,
            {name: round(value, 3) for name, value in moment.timings.items()},
            report,
        )

    def retrieve(
        self, collection: str, texts: Sequence[Text], candidates: int, signals: tuple[Signal, ...] | None = None
    ) -> list[Retrieved]:
        """Given mentions with their candidates, undecided: what training and evaluation start from."""
        moment = self._moment(collection)
        request = LinkRequest(tuple(texts), candidates=candidates, signals=signals)
        self.check(request)
        found = self._mentions(moment, request.texts, request)
        items = [(text, mention) for text, own in zip(texts, found, strict=True) for mention in own]
        return self._retrieve(moment, request, items)

    def judged(self, collection: str) -> frozenset[int]:
        """Digests of the mentions that the collection's link profile counts; empty where it counts none."""
        profile = self._collections.link_profile(collection)
        return self._collections.name_counts(collection).judged if profile and profile.counted else frozenset()

    def cross_scores(self, collection: str, cross: EntityCross, one: Retrieved, deadline: float) -> Floats | None:
        """The cross-encoder's scores of a mention's candidates; those that it did not read get the least of them."""
        extras: list[dict[Signal, Floats]] = [{}]
        self._read_together(self._moment(collection), cross, [one], extras, deadline)
        return extras[0].get(Signal.CROSS)

    def detector(self, collection: str) -> Detection:
        """A function that finds the dictionary's mentions in a text: the longest names, none within another."""
        return self._moment(collection).dictionary.detect

    def names_in(self, collection: str) -> Callable[[str], list[tuple[int, int]]]:
        """A function that finds every name of the knowledge base in a text, overlapping ones too."""
        return self._moment(collection).dictionary.names_in

    def known(self, collection: str) -> Callable[[set[str]], set[str]]:
        """A function that says which of some ids are entities."""
        return self._moment(collection).dictionary.known

    def meanings(self, collection: str) -> Callable[[str], list[str]]:
        """A function that gives the ids of all entities which a name means as title or alias, most probable first."""
        moment = self._moment(collection)
        reader = moment.snapshot.reader

        def ids(name: str) -> list[str]:
            (found,) = moment.dictionary.priors([name])
            return reader.doc_ids(reader.document_keys(found.rows)) if len(found) else []

        return ids

    def check(self, request: LinkRequest) -> None:
        """Raises UserError for a bad request."""
        limit = self._settings
        if not request.texts:
            raise InvalidInputError("nothing to link", received=[], expected="at least one text")
        unmarked = sum(one.mentions is None for one in request.texts)
        if unmarked > limit.max_texts:
            raise TooLargeError("too many texts", received=unmarked, expected=f"at most {limit.max_texts}")
        if len(request.texts) > max(limit.max_texts, limit.max_mentions):
            raise TooLargeError(
                "too many texts", received=len(request.texts), expected=f"at most {limit.max_mentions} with mentions"
            )
        for number, one in enumerate(request.texts):
            check_text(one.text, f"texts[{number}]")
            if len(one.text) > limit.max_text_chars:
                raise TooLargeError(
                    f"texts[{number}] is too long", received=f"{len(one.text)} characters",
                    expected=f"at most {limit.max_text_chars}",
                )  # fmt: skip
            check_spans(one.text, one.mentions or (), f"texts[{number}].mentions")
            for entity in one.exclude:
                check_text(entity, f"texts[{number}].exclude")
        for entity in request.exclude:
            check_text(entity, "exclude")
        if request.signals is not None and not (request.signals and set(request.signals) <= set(LINK_SIGNALS)):
            raise InvalidInputError(
                "bad signals",
                received=[str(one) for one in request.signals],
                expected=f"some of {', '.join(LINK_SIGNALS)}",
            )
        given = sum(len(one.mentions or ()) for one in request.texts)
        if given > limit.max_mentions:
            raise TooLargeError("too many mentions", received=given, expected=f"at most {limit.max_mentions}")
        for name, value, low, high in (
            ("candidates", request.candidates, 1, limit.max_candidates),
            ("threshold", request.threshold, 0.0, 1.0),
            ("budget_ms", request.budget_ms, 0.0, 600_000.0),
            ("coherence", request.coherence, 0.0, 100.0),
            ("joint", request.joint, 0.0, 1.0),
            ("evidence", request.evidence, 0.0, 100.0),
            ("shown", request.shown, 0, limit.max_candidates),
        ):
            if value is not None and not low <= value <= high:
                raise InvalidInputError(f"{name} is out of range", received=value, expected=f"{low} to {high}")

    def _moment(self, collection: str) -> _Moment:
        present = self._collections.present(collection)
        record, snapshot = present.engine.record, present.snapshot
        dictionary = self._dictionaries.view(collection, record.id, snapshot)
        missing: dict[str, str] = {}
        encoder = None
        if snapshot.dense is not None and snapshot.dense.vectors:
            try:
                encoder = self._encoders.mention(record)
            except EncoderUnavailableError as error:
                missing[Signal.DENSE.value] = str(error)
        else:
            missing[Signal.DENSE.value] = "no entity has a vector yet"
        profile = self._collections.link_profile(collection) or SHIPPED
        return _Moment(present, dictionary, profile, encoder, missing, {}, self._counted(collection, profile))

    def _counted(self, collection: str, profile: LinkProfile) -> Counts:
        """What names were judged to mean, by the names' keys; read when other mentions were counted."""
        if not profile.counted:
            return {}
        known = self._counts.get(collection)
        if known is None or known[0] != profile.counted:
            made: dict[int, dict[str, float]] = {}
            for name, meant in self._collections.name_counts(collection).names.items():
                keys = keys_of(name)
                own = made.setdefault(keys.folded, {}) if keys is not None else {}
                for doc_id, times in meant.items():  # names may differ as written and fold to one
                    own[doc_id] = own.get(doc_id, 0.0) + times
            known = self._counts[collection] = (profile.counted, made)
        return known[1]

    def _mentions(self, moment: _Moment, texts: Sequence[Text], request: LinkRequest) -> list[list[Mention]]:
        """Each text's mentions: those that are given, or what the detectors find in the others."""
        made = [[Mention(a, b, one.text[a:b]) for a, b in one.mentions or ()] for one in texts]
        unmarked = [at for at, one in enumerate(texts) if one.mentions is None]
        if not unmarked:
            return made
        names = self._settings.detectors if request.detectors is None else request.detectors
        if not names:
            raise InvalidInputError("no detector", received=list(names), expected=f"some of {', '.join(DETECTORS)}")
        plain = [texts[at].text for at in unmarked]
        found: list[list[list[Mention]]] = []
        for name in names:
            detector = None if name == "dictionary" else self._encoders.span_detector(name)
            if detector is None:
                found.append([moment.dictionary.detect(text) for text in plain])
            elif request.joint is not None and isinstance(detector, JointDetector):
                found.append(detector.possible(plain, self._settings.span_floor))
            else:
                found.append(detector.detect(plain))
        for at, text, own in zip(unmarked, plain, zip(*found, strict=True), strict=True):
            whole = [[one for one in (_of_whole_characters(text, m) for m in part) if one] for part in own]
            made[at] = union(whole) if request.joint is None else together(whole)
        return made

    def _retrieve(
        self, moment: _Moment, request: LinkRequest, items: Sequence[tuple[Text, Mention]]
    ) -> list[Retrieved]:
        if not items:
            return []
        before = time.perf_counter()
        mentions = [mention for _, mention in items]
        contexts = [_context(text.text, mention) for text, mention in items]
        vectors: Sequence[VectorArray | None] = [None] * len(mentions)
        if moment.encoder is not None:
            if isinstance(moment.encoder, InTextEncoder):
                vectors = list(moment.encoder.encode_spans([(text.text, m.start, m.end) for text, m in items]))
            else:
                vectors = list(moment.encoder.encode(contexts))
        moment.took("encode", before)
        before = time.perf_counter()
        snapshot, record = moment.snapshot, moment.present.engine.record
        counted = [text.counted for text, _ in items]
        priors = moment.dictionary.priors([m.text for m in mentions], moment.counts, counted)
        allowed = snapshot.reader.select(parse_filter(request.filter)) if request.filter is not None else None
        excluded = {text.exclude for text, _ in items}
        own = {ids: self._keys(snapshot, (*request.exclude, *ids)) for ids in excluded}
        analyzer = Analyzer(record.analyzer)
        bag = self._encoders.bag(record.vdr_encoder)
        full = self._encoders.full(record) if snapshot.vdr is not None else None
        mode: VdrMode = "bag" if full is None else vdr_mode("auto", snapshot, self._encoders.vdr_mode(record))
        if mode in {"full", "beta"}:  # a name alone needs no encoder
            mode = "alpha" if mode == "full" else "bag"
        k = request.candidates or self._settings.candidates

        def one(item: tuple[Text, Mention], vector: VectorArray | None, prior: Scored) -> Candidates:
            text, mention = item
            name = fold(mention.text)
            terms = tuple(dict.fromkeys(analyzer.terms(name)))[: self._settings.max_mention_terms]
            near = _near(text.text, mention)
            context = [term for term in dict.fromkeys(analyzer.terms(near)) if term not in terms]
            forms = QueryForms(snapshot, AnalyzedQuery(name, terms), bag, full, mode, self._settings.max_mention_terms)
            return generate(
                snapshot, forms, vector, prior, moment.profile.retrieval, k,
                allowed=allowed, exclude=own[text.exclude], signals=request.signals or LINK_SIGNALS,
                context=context, around=near, ordinary=ordinary(mention.text),
            )  # fmt: skip

        if len(items) == 1:
            made = [one(items[0], vectors[0], priors[0])]
        else:
            made = list(self._pool.map(one, items, vectors, priors))
        moment.took("candidates", before)
        evidence = [text.evidence for text, _ in items]
        return [Retrieved(*parts) for parts in zip(mentions, contexts, made, evidence, strict=True)]

    @staticmethod
    def _keys(snapshot: Snapshot, ids: Sequence[str]) -> list[int]:
        rows = [snapshot.reader.document_rows(one) for one in ids]
        found = np.concatenate(rows) if rows else np.zeros(0, dtype=np.int64)
        return sorted(set(snapshot.reader.document_keys(found).tolist())) if len(found) else []

    def _cross(self, moment: _Moment) -> tuple[EntityCross | None, CrossReport | None]:
        try:
            return self._encoders.entity_cross(), None
        except EncoderUnavailableError as error:
            moment.missing[Signal.CROSS.value] = str(error)
            return None, CrossReport("", 0, 0, 0.0, str(error))

    def _read_together(
        self,
        moment: _Moment,
        cross: EntityCross,
        retrieved: Sequence[Retrieved],
        extras: Sequence[dict[Signal, Floats]],
        deadline: float,
    ) -> int:
        """Add the cross-encoder's scores of each mention's best candidates; how many mentions it reached."""
        tops = [self._top(moment, one) for one in retrieved]
        rows = np.unique(np.concatenate([one.candidates.rows[top] for one, top in zip(retrieved, tops, strict=True)]))
        passages = moment.snapshot.reader.passages(rows)
        entities = [
            [(passages[row].title, description_of(passages[row].text)) for row in one.candidates.rows[top].tolist()]
            for one, top in zip(retrieved, tops, strict=True)
        ]
        try:
            scores = cross.score([one.context for one in retrieved], entities, deadline)
        except EncoderUnavailableError as error:
            moment.missing[Signal.CROSS.value] = str(error)
            return 0
        done = 0
        for one, top, own, extra in zip(retrieved, tops, scores, extras, strict=True):
            if len(own) and not np.isnan(own).any():
                # Those that it did not read are taken to be as bad as the worst that it did.
                values = np.full(len(one.candidates), float(own.min()))
                values[top] = own
                extra[Signal.CROSS] = values
                done += 1
        return done

    def _top(self, moment: _Moment, one: Retrieved) -> list[int]:
        return list(decide(one.candidates, moment.profile.fast, {}).order[: self._settings.rerank_top])

    def _decided(
        self,
        moment: _Moment,
        request: LinkRequest,
        retrieved: Sequence[Retrieved],
        extras: Sequence[dict[Signal, Floats]],
    ) -> list[Link]:
        deciding = [_deciding(moment.profile, Signal.CROSS in extra) for extra in extras]
        utilities = [utility for utility, _ in deciding]
        if request.evidence:
            utilities = [as_it_comes(one, "evidence") for one in utilities]
            for one, extra in zip(retrieved, extras, strict=True):
                extra[Signal.EVIDENCE] = request.evidence * _evidence(moment.snapshot, one)
        decided = [
            decide(one.candidates, utility, extra)
            for one, utility, extra in zip(retrieved, utilities, extras, strict=True)
        ]
        if request.coherence:
            vectors = [_vectors(moment.snapshot, one.candidates) for one in retrieved]
            for extra, values in zip(extras, coherence(decided, vectors, request.coherence), strict=True):
                extra[Signal.COHERENCE] = values
            decided = [
                decide(one.candidates, as_it_comes(utility, "coherence"), extra)
                for one, utility, extra in zip(retrieved, utilities, extras, strict=True)
            ]
            utilities = [as_it_comes(one, "coherence") for one in utilities]
        return [
            self._link(
                moment, request, one, own, utility, threshold if request.threshold is None else request.threshold
            )
            for one, own, utility, (_, threshold) in zip(retrieved, decided, utilities, deciding, strict=True)
        ]

    def _link(
        self,
        moment: _Moment,
        request: LinkRequest,
        one: Retrieved,
        decided: Decided,
        utility: Utility,
        threshold: float,
    ) -> Link:
        if not decided.order:
            return Link(one.mention, None, "", 0.0, "no_candidates", ())
        shown = decided.order[: max(1, request.shown)]
        places = list(shown)
        reader = moment.snapshot.reader
        passages = reader.passages(one.candidates.rows[places])
        ids = reader.doc_ids(one.candidates.keys[places])
        kinds = [str(metadata.get("kind", "")) for metadata in reader.metadata(one.candidates.keys[places])]
        made = []
        for rank, (place, entity, kind) in enumerate(zip(places, ids, kinds, strict=True), 1):
            passage = passages[int(one.candidates.rows[place])]
            made.append(
                Candidate(
                    rank, entity, passage.title, kind, description_of(passage.text)[:_SHOWN_CHARS],
                    round(float(decided.probability_C[place]), 6), float(decided.utility_C[place]),
                    ledger(decided, one.candidates, place, utility),
                )
            )  # fmt: skip
        best = made[0]
        linked = decided.right >= threshold
        return Link(
            one.mention,
            best.entity_id if linked else None,
            best.title if linked else "",
            decided.right,
            "linked" if linked else "below_threshold",
            tuple(made[: request.shown]),
        )


def _of_whole_characters(text: str, one: Mention) -> Mention | None:
    """A mention that cuts no character: what a model found grows; a name is none where the text has another letter."""
    start, end = whole_characters(text, one.start, one.end)
    if (start, end) == (one.start, one.end):
        return one
    return None if one.detector == "dictionary" else replace(one, start=start, end=end, text=text[start:end])


def _jointly(links: Sequence[Link], least: float) -> list[Link]:
    """Of links whose spans may overlap the best by joint probability, those of at least so much."""
    made = [replace(one, joint=_mention_probability(one.mention) * one.probability) for one in links]
    made = [one for one in made if one.joint is not None and one.joint >= least]
    kept = apart([(one.mention.start, one.mention.end) for one in made], [one.joint or 0.0 for one in made])
    return [made[at] for at in kept]


def _mention_probability(mention: Mention) -> float:
    """The span head's, where that found it; what others find, and what is given, is taken to be a mention."""
    return mention.score if mention.detector == "elq" else 1.0


def _near(text: str, mention: Mention) -> str:
    """The words near a mention, without its own."""
    return fold(
        f"{text[max(0, mention.start - _NEAR_CHARS) : mention.start]} {text[mention.end : mention.end + _NEAR_CHARS]}"
    )


def _context(text: str, mention: Mention) -> MentionContext:
    left = text[max(0, mention.start - _CONTEXT_CHARS) : mention.start]
    return MentionContext(left, mention.text, text[mention.end : mention.end + _CONTEXT_CHARS])


def _blocks(
    texts: Sequence[Text], found: Sequence[Sequence[Mention]]
) -> Iterator[list[tuple[int, list[tuple[Text, Mention]]]]]:
    """(number of the text, its mentions) in blocks of about `_BLOCK` mentions; a text of more is cut."""
    block: list[tuple[int, list[tuple[Text, Mention]]]] = []
    count = 0
    for number, (text, mentions) in enumerate(zip(texts, found, strict=True)):
        for at in range(0, len(mentions), _BLOCK):
            block.append((number, [(text, mention) for mention in mentions[at : at + _BLOCK]]))
            count += len(block[-1][1])
            if count >= _BLOCK:
                yield block
                block, count = [], 0
    if block:
        yield block


def _deciding(profile: LinkProfile, read_together: bool) -> tuple[Utility, float]:
    """What decides a mention, and from which probability on it is linked: with the cross-encoder or without."""
    if read_together:
        return profile.cross, profile.cross_threshold
    return profile.fast, profile.fast_threshold


def as_it_comes(utility: Utility, feature: str) -> Utility:
    """The same, counting a feature that is weighed already as it is."""
    return Utility({**utility.coefficients, feature: 1.0}, utility.nil, utility.knots)


def _evidence(snapshot: Snapshot, one: Retrieved) -> Floats:
    known = dict(one.evidence)
    ids = snapshot.reader.doc_ids(one.candidates.keys) if known and len(one.candidates) else []
    return np.array([known.get(name, 0.0) for name in ids]) if ids else np.zeros(len(one.candidates))


def _vectors(snapshot: Snapshot, candidates: Candidates) -> VectorArray:
    rows, vectors = snapshot.reader.vectors(candidates.rows)
    width = vectors.shape[1] if len(rows) else 0
    found = np.zeros((len(candidates), width), dtype=np.float32)
    at = {row: place for place, row in enumerate(candidates.rows.tolist())}
    for row, vector in zip(rows.tolist(), vectors, strict=True):
        found[at[row]] = vector
    return found


def check_spans(text: str, spans: Sequence[tuple[int, int]], where: str) -> None:
    """Raises InvalidInputError, saying `where`, for a span that is empty, reversed, out of range, blank, or splits a
    character.

    Spans may overlap: each is linked by itself.
    """
    for number, span in enumerate(spans):
        start, end = span
        place = f"{where}[{number}]"
        if not 0 <= start < end <= len(text):
            raise InvalidInputError(
                f"{place}: bad mention", received=list(span), expected=f"0 <= start < end <= {len(text)} in code points"
            )
        if not text[start:end].strip():
            raise InvalidInputError(
                f"{place}: a mention is blank", received=list(span), expected="some visible characters"
            )
        for at in (start, end):
            if splits_a_character(text, at):
                raise InvalidInputError(
                    f"{place}: a mention cuts a character from its combining marks", received=list(span),
                    expected=f"a boundary beside code point {at}, not at it",
                )  # fmt: skip
