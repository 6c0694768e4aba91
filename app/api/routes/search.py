"""Routes for searches, explanations of missing documents, and VDR vocabulary weights."""

from __future__ import annotations

from dataclasses import replace

from fastapi import Response

from hyblink.app.access.keys import Role
from hyblink.app.api.answers import BUSY, NOT_FOUND, json_answer
from hyblink.app.api.dependencies import Caller, CallerDep, ServiceDep, guarded_router, requires
from hyblink.app.api.schemas.search import ExplainBody, SearchBody, VocabularyBody
from hyblink.app.application import App
from hyblink.app.core.types.search import EntityUse, SearchRequest, SearchResult
from hyblink.app.operations.query_entities import query_entities
from hyblink.app.search.vocabulary import Vocabulary
from hyblink.app.search.why_not import WhyNot

router = guarded_router()


def _request(app: App, caller: Caller, body: SearchBody) -> SearchRequest:
    """The search request, with the entities of the query if the body asks for them. Checks access to them too."""
    request = body.request(app.settings.search)
    if body.generation is not None:
        caller.on(body.collection, Role.ADMIN)
    if body.entities is None:
        return request
    use = body.entities
    kb = caller.on(use.kb)
    found = query_entities(app, kb, body.query, use.threshold, documents=body.collection, evidence=use.evidence)
    return replace(request, entities=EntityUse(found, use.mode, use.weight))


@router.post(
    "/v1/search",
    tags=["search"],
    summary="Search a collection",
    responses={200: {"model": SearchResult}, **NOT_FOUND, **BUSY},
    response_model=None,
)
@requires(Role.SEARCH, budgeted=True)
def search(body: SearchBody, service: ServiceDep, caller: CallerDep) -> Response:
    app = service.app
    caller.on(body.collection)
    with service.searches.taken():
        result = app.search.search(body.collection, _request(app, caller, body))
    service.metrics.searched(result)
    if body.log:
        ranks = {str(hit.doc_id): hit.rank for hit in result.hits}
        search_id = app.feedback.log_impressions(
            body.collection, body.query, ranks, generation=result.generation, by=caller.id
        )
        result = replace(result, search_id=search_id)
    return json_answer(result)


@router.post(
    "/v1/explain",
    tags=["search"],
    summary="Why is this document (not) there?",
    responses={200: {"model": WhyNot}, **NOT_FOUND, **BUSY},
    response_model=None,
)
@requires(Role.SEARCH, budgeted=True)
def explain(body: ExplainBody, service: ServiceDep, caller: CallerDep) -> Response:
    app = service.app
    caller.on(body.collection)
    with service.searches.taken():
        request = _request(app, caller, body)
        return json_answer(app.search.why_not(body.collection, request, body.document_id))


@router.post(
    "/v1/vocabulary",
    tags=["search"],
    summary="A text read out over the VDR vocabulary, and what it shares with a passage",
    responses={200: {"model": Vocabulary}, **NOT_FOUND, **BUSY},
    response_model=None,
)
@requires(Role.SEARCH, budgeted=True)
def vocabulary(body: VocabularyBody, service: ServiceDep, caller: CallerDep) -> Response:
    caller.on(body.collection)
    with service.searches.taken():
        return json_answer(service.app.search.vocabulary(body.collection, body.text, body.passage, body.top))
