"""What a query or a text mentions, with the help of documents that were found for it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hyblink.app.application import App
from hyblink.app.core.types.linking import LinkRequest, Text
from hyblink.app.core.types.search import LINKED_ENTITIES, LinkedEntity, SearchRequest

EVIDENT_HITS = 10
"""Documents whose entities are evidence for what a text mentions."""


def with_evidence(app: App, request: LinkRequest, collection: str, hits: int) -> LinkRequest:
    """The request, each of its texts with what the best documents for it are annotated with. Raises UserError."""
    app.linker.check(request)
    return replace(request, texts=tuple(_with_evidence(app, one, collection, hits) for one in request.texts))


def _with_evidence(app: App, text: Text, collection: str, hits: int) -> Text:
    query = text.text[: app.settings.search.max_query_chars]
    if not query.strip():
        return text
    request = SearchRequest(query, k=hits, candidates=max(hits, 50), highlight=False)
    found = app.search.search(collection, request).hits
    counted: Counter[str] = Counter()
    for hit in found:
        entities = hit.metadata.get(LINKED_ENTITIES)
        if isinstance(entities, list):
            counted.update(entities)
    return replace(text, evidence=tuple((name, count / len(found)) for name, count in counted.items()))


def query_entities(
    app: App, kb: str, query: str, threshold: float | None = None, *, documents: str = "", evidence: float = 0.0
) -> tuple[LinkedEntity, ...]:
    """The entities that a query mentions, each once, the most probable first.

    With `evidence`, what the best documents for the query are annotated with counts for as much.
    """
    request = LinkRequest((Text(query),), shown=1, rerank=False, threshold=threshold)
    if evidence:
        request = replace(with_evidence(app, request, documents, EVIDENT_HITS), evidence=evidence)
    result = app.linker.link(kb, request)
    found: dict[str, LinkedEntity] = {}
    for link in result.texts[0].links:
        if link.entity_id is not None:
            known = found.get(link.entity_id)
            if known is None or link.probability > known.probability:
                found[link.entity_id] = LinkedEntity(link.entity_id, link.title, link.probability)
    return tuple(sorted(found.values(), key=lambda entity: (-entity.probability, entity.id)))
