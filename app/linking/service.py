"""The linking service: texts → mentions → candidates → disambiguation → links, on one snapshot of a knowledge base."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from hyblink.app.core.budget import BUDGET, leave_out, linking_cost, report_of_budget
from hyblink.app.core.errors import EncoderUnavailableError, OverBudgetError, TooLargeError
from hyblink.app.core.ports.collections import Collections
from hyblink.app.core.ports.encoders import (
    EntityCross,
)
from hyblink.app.core.settings import LinkSettings
from hyblink.app.core.types.linking import (
    CrossReport,
    Link,
    LinkedText,
    LinkRequest,
    LinkResult,
    Mention,
    Text,
)
from hyblink.app.core.types.ranking import Signal
from hyblink.app.encoders.pool import EncoderPool
from hyblink.app.linking.deciding import deciding, jointly, links_of, score_with_cross_encoder
from hyblink.app.linking.disambiguation import Floats
from hyblink.app.linking.mention_detection import (
    Detection,
)
from hyblink.app.linking.request import check_request
from hyblink.app.linking.retrieval import LinkSession, Retrieval, Retrieved

_BLOCK_OF_REQUEST = 64
"""How many are processed at a time in a request with a budget, so that little is lost where it ends."""
_CROSS_SHARE = 0.5
"""The share of what is left of the budget that the cross-encoder may use for a block of mentions."""
_BLOCK = 256
"""How many mentions are processed at a time, to bound the memory for their candidates."""


class LinkService:
    """Links texts to the entities of a knowledge base. Safe to share between threads."""

    def __init__(self, collections: Collections, encoders: EncoderPool, settings: LinkSettings) -> None:
        self._collections = collections
        self._encoders = encoders
        self._settings = settings
        self._retrieval = Retrieval(collections, encoders, settings)

    def close(self) -> None:
        """Stop the threads."""
        self._retrieval.close()

    def link(self, collection: str, request: LinkRequest) -> LinkResult:
        """Detect and link the mentions of every text. Raises UserError for a bad request."""
        started = time.perf_counter()
        self.check(request)
        session = self._retrieval.open_session(collection)
        limit = self._settings
        found = self._retrieval.mentions(session, request.texts, request)
        session.took("mentions", started)
        total = sum(len(mentions) for mentions in found)
        if total > limit.max_mentions:
            raise TooLargeError("too many mentions", received=total, expected=f"at most {limit.max_mentions}")
        rerank = limit.rerank if request.rerank is None else request.rerank
        cross, report = self._cross(session) if rerank and total else (None, None)
        budget = (limit.rerank_budget_ms if request.budget_ms is None else request.budget_ms) / 1e3
        deadline = time.perf_counter() + budget
        scored = skipped = 0
        cross_s = 0.0
        links: list[list[Link]] = [[] for _ in request.texts]
        for block in _blocks(request.texts, found, _BLOCK if BUDGET.get() is None else _BLOCK_OF_REQUEST):
            items = [item for _, some in block for item in some]
            try:
                retrieved = self._retrieval.retrieve(session, request, items)
                extras: list[dict[Signal, Floats]] = [{} for _ in retrieved]
                if cross is not None:
                    before = time.perf_counter()
                    most = self._settings.rerank_top
                    with linking_cost(_CROSS_SHARE):
                        done = score_with_cross_encoder(session, cross, retrieved, extras, deadline, most)
                    scored, skipped = scored + done, skipped + len(retrieved) - done
                    cross_s += time.perf_counter() - before
                before = time.perf_counter()
                at = 0
                for number, some in block:  # text by text: coherence uses neighbours in the same text only
                    part = slice(at, at + len(some))
                    links[number] += links_of(session, request, retrieved[part], extras[part])
                    at += len(some)
                session.took("decide", before)
            except OverBudgetError:
                links = _with_unreached(links, found)
                break
        if request.joint is not None:
            links = [
                jointly(own, request.joint) if text.mentions is None else own
                for text, own in zip(request.texts, links, strict=True)
            ]
        if cross is not None:
            error = session.missing.get(Signal.CROSS.value, "")
            report = CrossReport(cross.id, scored, skipped, round(cross_s * 1e3, 3), error)
            session.timings["cross"] = cross_s * 1e3
        session.timings["total"] = (time.perf_counter() - started) * 1e3
        record = session.opened.engine.record
        fitted = session.encoder.id if session.encoder else ""
        utility, threshold = deciding(session.profile, scored > 0)
        added = bool(request.coherence or request.evidence)
        among = request.signals is None and request.filter is None
        as_fitted = session.profile.mention_encoder == fitted and not added and among
        return LinkResult(
            tuple(LinkedText(tuple(own)) for own in links),
            record.id,
            session.snapshot.change,
            session.profile.version,
            bool(utility.knots) and as_fitted,
            threshold if request.threshold is None else request.threshold,
            fitted,
            session.missing,
            {name: round(value, 3) for name, value in session.timings.items()},
            report,
            report_of_budget(),
        )

    def retrieve(
        self, collection: str, texts: Sequence[Text], candidates: int, signals: tuple[Signal, ...] | None = None
    ) -> list[Retrieved]:
        """Return the given mentions with their candidates, before disambiguation, for training and evaluation."""
        session = self._retrieval.open_session(collection)
        request = LinkRequest(tuple(texts), candidates=candidates, signals=signals)
        self.check(request)
        found = self._retrieval.mentions(session, request.texts, request)
        items = [(text, mention) for text, own in zip(texts, found, strict=True) for mention in own]
        return self._retrieval.retrieve(session, request, items)

    def judged(self, collection: str) -> frozenset[int]:
        """Return the digests of the judged mentions in the link profile's name counts; empty without counts."""
        profile = self._collections.link_profile(collection)
        return self._collections.name_counts(collection).judged if profile and profile.counted else frozenset()

    def cross_scores(self, collection: str, cross: EntityCross, retrieved: Retrieved, deadline: float) -> Floats | None:
        """Return the cross-encoder's scores of a mention's candidates, shape (C,); None if it did not finish.

        Candidates beyond the first `rerank_top` get the lowest score of the others.
        """
        extras: list[dict[Signal, Floats]] = [{}]
        score_with_cross_encoder(
            self._retrieval.open_session(collection), cross, [retrieved], extras, deadline, self._settings.rerank_top
        )
        return extras[0].get(Signal.CROSS)

    def detector(self, collection: str) -> Detection:
        """Return a function that finds the dictionary's mentions in a text, by longest match, without overlaps."""
        return self._retrieval.open_session(collection).dictionary.detect

    def names_in(self, collection: str) -> Callable[[str], list[tuple[int, int]]]:
        """Return a function that finds the (start, end) of every name in a text, overlapping ones included."""
        return self._retrieval.open_session(collection).dictionary.names_in

    def known(self, collection: str) -> Callable[[set[str]], set[str]]:
        """Return a function that filters a set of ids to those that are entities of the knowledge base."""
        return self._retrieval.open_session(collection).dictionary.known

    def meanings(self, collection: str) -> Callable[[str], list[str]]:
        """Return a function that gives the ids of the entities with a name as title or alias, most probable first."""
        session = self._retrieval.open_session(collection)
        reader = session.snapshot.reader

        def ids(name: str) -> list[str]:
            (found,) = session.dictionary.priors([name])
            return reader.doc_ids(reader.document_keys(found.rows)) if len(found) else []

        return ids

    def check(self, request: LinkRequest) -> None:
        """Validate a request. Raises UserError."""
        check_request(request, self._settings)

    def _cross(self, session: LinkSession) -> tuple[EntityCross | None, CrossReport | None]:
        try:
            return self._encoders.entity_cross(), None
        except EncoderUnavailableError as error:
            session.missing[Signal.CROSS.value] = str(error)
            return None, CrossReport("", 0, 0, 0.0, str(error))


def _with_unreached(links: Sequence[list[Link]], found: Sequence[Sequence[Mention]]) -> list[list[Link]]:
    """The links so far, and one without candidates for each mention that the budget did not reach."""
    left = sum(len(mentions) - len(own) for own, mentions in zip(links, found, strict=True))
    leave_out(
        f"candidates of {left} mentions, which have the reason not_reached: send fewer texts, or ask for less of each"
    )
    return [
        own + [Link(mention, None, "", 0.0, "not_reached", ()) for mention in mentions[len(own) :]]
        for own, mentions in zip(links, found, strict=True)
    ]


def _blocks(
    texts: Sequence[Text], found: Sequence[Sequence[Mention]], size: int
) -> Iterator[list[tuple[int, list[tuple[Text, Mention]]]]]:
    """Blocks of (index of a text, its mentions) with about `size` mentions each; longer texts are split."""
    block: list[tuple[int, list[tuple[Text, Mention]]]] = []
    count = 0
    for number, (text, mentions) in enumerate(zip(texts, found, strict=True)):
        for at in range(0, len(mentions), size):
            block.append((number, [(text, mention) for mention in mentions[at : at + size]]))
            count += len(block[-1][1])
            if count >= size:
                yield block
                block, count = [], 0
    if block:
        yield block
