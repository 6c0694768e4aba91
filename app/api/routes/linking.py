"""Routes that link texts to entities, and that upsert, read and remove entities."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path, Query, Response

from hyblink.app.access.keys import Role
from hyblink.app.api.answers import BUSY, CONFLICT, NOT_FOUND, KnowledgeBaseName, json_answer
from hyblink.app.api.dependencies import AppDep, CallerDep, ServiceDep, guarded_router, requires
from hyblink.app.api.routes.documents import removed, written
from hyblink.app.api.schemas.documents import BulkAnswer, BulkItemAnswer
from hyblink.app.api.schemas.linking import EntitiesBody, LinkBody
from hyblink.app.core.budget import linking_cost
from hyblink.app.core.checks import check_text
from hyblink.app.core.names import COLLECTION_PATTERN
from hyblink.app.core.types.linking import Entity, LinkResult
from hyblink.app.linking.annotation import Mentioned, mentioned
from hyblink.app.linking.knowledge_base import entity_spec
from hyblink.app.operations.collections import ensure_collection
from hyblink.app.operations.query_entities import with_evidence

router = guarded_router()
EntityId = Annotated[str, Path(description="The entity's id.", min_length=1, max_length=512)]


@router.post(
    "/v1/link",
    tags=["linking"],
    summary="Link the mentions of texts to entities of a knowledge base",
    description="At most {link.max_texts} texts of {link.max_text_chars} characters and "
    "{link.max_mentions} mentions. Offsets are code points of the text as sent.",
    responses={200: {"model": LinkResult}, **NOT_FOUND, **BUSY},
    response_model=None,
)
@requires(Role.SEARCH, budgeted=True)
def link(body: LinkBody, service: ServiceDep, caller: CallerDep) -> Response:
    caller.on(body.collection)
    if body.evidence is not None:
        caller.on(body.evidence.collection)
    with service.links.taken(), linking_cost():
        request = body.request()
        if body.evidence is not None:
            request = with_evidence(service.app, request, body.evidence.collection, body.evidence.hits)
        result = service.app.linker.link(body.collection, request)
    service.metrics.linked(result)
    return json_answer(result)


@router.post(
    "/v1/entities:bulk",
    tags=["linking"],
    summary="Upsert entities, item by item",
    description="At most {api.max_bulk_documents} entities and {api.max_body_bytes} bytes. "
    "When it is answered, what was accepted is durable and a candidate for the next request.",
    responses={200: {"model": BulkAnswer}, **NOT_FOUND, **CONFLICT},
    response_model=None,
)
@requires(Role.INGEST, collection="entities")
def bulk_entities(
    body: EntitiesBody, service: ServiceDep, caller: CallerDep, collection: KnowledgeBaseName = "entities"
) -> Response:
    app = service.app
    caller.on(collection)
    app.entities.check(ensure_collection(app, entity_spec(collection)))
    return written(service, collection, app.entities.bulk(collection, body.entities))


@router.get(
    "/v1/entities/{entity_id:path}/mentions",
    tags=["linking"],
    summary="Where an entity is mentioned, and beside which others",
    responses={200: {"model": Mentioned}, **NOT_FOUND},
    response_model=None,
)
@requires(Role.SEARCH, budgeted=True, documents="default")
def entity_mentions(
    entity_id: EntityId,
    app: AppDep,
    caller: CallerDep,
    documents: Annotated[str, Query(description="The annotated collection.", pattern=COLLECTION_PATTERN)] = "default",
    limit: Annotated[int, Query(ge=1, le=1000, description="Documents and neighbours shown.")] = 20,
) -> Response:
    caller.on(documents)
    check_text(entity_id, "entity id")
    return json_answer(mentioned(app.catalog.open(documents).snapshot, entity_id, limit))


@router.get(
    "/v1/entities/{entity_id:path}",
    tags=["linking"],
    summary="An entity as it was sent",
    responses={200: {"model": Entity}, **NOT_FOUND},
    response_model=None,
)
@requires(Role.SEARCH, collection="entities")
def get_entity(
    entity_id: EntityId, app: AppDep, caller: CallerDep, collection: KnowledgeBaseName = "entities"
) -> Response:
    caller.on(collection)
    return json_answer(app.entities.get(collection, entity_id))


@router.delete(
    "/v1/entities/{entity_id:path}",
    tags=["linking"],
    summary="Remove an entity from every generation",
    responses={200: {"model": BulkItemAnswer}, **NOT_FOUND, **CONFLICT},
    response_model=None,
)
@requires(Role.INGEST, collection="entities")
def remove_entity(
    entity_id: EntityId, app: AppDep, caller: CallerDep, collection: KnowledgeBaseName = "entities"
) -> Response:
    caller.on(collection)
    return removed(app.entities.remove(collection, [entity_id]), "no such entity")
