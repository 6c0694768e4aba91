"""Hard-negative mining from a collection, with its own search and any combination of signals."""

from __future__ import annotations

from hyblink.app.core.types.documents import heading_of
from hyblink.app.core.types.ranking import Signal
from hyblink.app.core.types.search import SearchRequest
from hyblink.app.search.service import SearchService
from hyblink.training.data.rows import Text
from hyblink.training.negatives.mining import Proposal


class CollectionSource:
    """A source of proposals that searches a collection. Each document is represented by its best passage.

    `signals` are the retrieval signals to use, `name` is the source name of the proposals, `candidates` the number of
    candidates per signal. `generation` None means the serving generation.
    """

    def __init__(
        self,
        service: SearchService,
        collection: str,
        signals: tuple[Signal, ...],
        name: str,
        *,
        candidates: int = 200,
        generation: str | None = None,
    ) -> None:
        self._service = service
        self._collection = collection
        self._signals = signals
        self._name = name
        self._candidates = candidates
        self._generation = generation

    def __call__(self, query: str, depth: int) -> list[Proposal]:
        request = SearchRequest(
            query,
            k=min(depth, self._candidates),
            candidates=self._candidates,
            signals=self._signals,
            highlight=False,
            passages_per_document=1,
            generation=self._generation,
        )
        return [
            Proposal(
                Text(hit.passages[0].text, heading_of(hit.title, hit.passages[0].path), hit.doc_id),
                self._name,
                hit.rank,
                hit.score,
            )
            for hit in self._service.search(self._collection, request).hits
        ]
