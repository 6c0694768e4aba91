"""Link the entities in a query or text, optionally with evidence from the documents that a search finds for it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hyblink.app.application import App
from hyblink.app.core.budget import check_budget, leave_out, linking_cost
from hyblink.app.core.errors import OverBudgetError, TooLargeError
from hyblink.app.core.types.linking import LinkRequest, Text
from hyblink.app.core.types.search import LINKED_ENTITIES, LinkedEntity, SearchRequest

_EVIDENCE_SHARE = 0.5
"""The share of a request's budget that the searches for evidence may use."""
_LINKING_SHARE = 0.5
"""The share of a search's budget that the linking of its query may use."""
EVIDENT_HITS = 10
"""How many top documents of a search are used as evidence for the entities of a query."""


def with_evidence(app: App, request: LinkRequest, collection: str, hits: int) -> LinkRequest:
    """Return the request with evidence added to each text.

    Evidence is the entities that the text's top `hits` documents in `collection` are annotated with, each with the
    share of those documents. Texts whose mentions are given and none get no evidence. Raises UserError, and
    TooLargeError for more than `link.max_texts` texts: each of them is searched for.
    """
    app.linker.check(request)
    most, wanted = app.settings.link.max_texts, sum(text.mentions != () for text in request.texts)
    if wanted > most:
        raise TooLargeError("too many texts to find evidence for", received=wanted, expected=f"at most {most}")
    texts: list[Text] = []
    with linking_cost(_EVIDENCE_SHARE):
        for number, text in enumerate(request.texts):
            if text.mentions == ():
                texts.append(text)
                continue
            try:
                check_budget()
                texts.append(_with_evidence(app, text, collection, hits))
            except OverBudgetError:
                leave_out(f"evidence for the texts from texts[{number}] on: send fewer texts")
                texts += request.texts[number:]
                break
    return replace(request, texts=tuple(texts))


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
    """Return the distinct entities that a query mentions, most probable first.

    With `evidence` above 0, the annotations of the query's top documents in the collection `documents` are an extra
    feature of this weight.
    """
    request = LinkRequest((Text(query),), shown=1, rerank=False, threshold=threshold)
    with linking_cost(_LINKING_SHARE):
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
