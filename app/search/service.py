"""The search service: result pages, candidate pools for tuning, and explanations of missing documents."""

from __future__ import annotations

import time

from hyblink.app.core.budget import report_of_budget
from hyblink.app.core.checks import check_text
from hyblink.app.core.ports.collections import Collections
from hyblink.app.core.settings import SearchSettings
from hyblink.app.core.types.search import (
    SearchRequest,
    SearchResult,
)
from hyblink.app.encoders.pool import EncoderPool
from hyblink.app.search.ranking import Ranker
from hyblink.app.search.results import facets_of, page_of
from hyblink.app.search.vocabulary import Vocabulary, vocabulary
from hyblink.app.search.why_not import WhyNot, why_not
from hyblink.ranker.complete import CompleteScores


class SearchService:
    """Answers search requests. Safe to share between threads."""

    def __init__(self, collections: Collections, encoders: EncoderPool, settings: SearchSettings) -> None:
        self._collections = collections
        self._encoders = encoders
        self._settings = settings
        self._ranker = Ranker(collections, encoders, settings)

    def close(self) -> None:
        """Stop the leg threads."""
        self._ranker.close()

    def search(self, collection: str, request: SearchRequest) -> SearchResult:
        """Return one page of results. Raises UserError for a bad request, UnavailableError if no leg answered."""
        started = time.perf_counter()
        ranked = self._ranker.rank(collection, request)
        before = time.perf_counter()
        page = range(request.offset, min(request.offset + request.k, len(ranked.documents)))
        hits = page_of(ranked, page, request, self._encoders)
        facets = facets_of(ranked, request.facets)
        ranked.timings["present"] = (time.perf_counter() - before) * 1e3
        ranked.timings["total"] = (time.perf_counter() - started) * 1e3
        answered = {*ranked.proposed, *ranked.fused.complete.signals}
        return SearchResult(
            hits,
            len(ranked.fused.complete.rows),
            len(ranked.documents),
            ranked.engine.record.id,
            ranked.snapshot.change,
            ranked.profile,
            ranked.reports,
            tuple(signal for signal in request.signals if signal not in answered),  # the reports give the reasons
            facets,
            {name: round(value, 3) for name, value in ranked.timings.items()},
            ranked.rerank,
            request.entities.entities if request.entities is not None else (),
            waiting=ranked.waiting,
            budget=report_of_budget(),
        )

    def vocabulary(self, collection: str, text: str, passage: str | None = None, top: int = 50) -> Vocabulary:
        """Return the VDR token weights of a text, encoded as a query and as a passage.

        With `passage`, also return the tokens that contribute to its score for the text as a query. Raises
        InvalidInputError for an empty text.
        """
        opened = self._collections.open(collection)
        return vocabulary(opened, self._encoders, text, passage, top, self._settings.max_vocabulary_chars)

    def pool(self, collection: str, request: SearchRequest) -> tuple[CompleteScores, list[str]]:
        """Return the raw scores of all candidates by signal, and the document id of each candidate, for tuning."""
        ranked = self._ranker.rank(collection, request)
        scores, reader = ranked.fused.complete, ranked.snapshot.reader
        return scores, reader.doc_ids(reader.document_keys(scores.rows))

    def why_not(self, collection: str, request: SearchRequest, doc_id: str) -> WhyNot:
        """Explain at which stage a document was lost, and at which rank it stands.

        Raises NotFoundError if the document does not exist.
        """
        check_text(doc_id, "document id")
        return why_not(self._ranker.rank(collection, request, extra_document=doc_id), request, doc_id)
