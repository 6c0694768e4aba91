"""Routes that list and create collections."""

from __future__ import annotations

from fastapi import Response

from hyblink.app.access.keys import Role
from hyblink.app.api.answers import CONFLICT, NOT_FOUND, json_answer
from hyblink.app.api.dependencies import AppDep, CallerDep, guarded_router, requires
from hyblink.app.api.schemas.collections import CollectionAnswer, CollectionBody, CollectionsAnswer
from hyblink.app.core.types.collections import Annotation, CollectionSpec, GenerationRecord
from hyblink.app.core.types.documents import StoreCounts
from hyblink.app.operations.annotation import annotate_always
from hyblink.app.operations.collections import new_record

router = guarded_router()


def _shown(spec: CollectionSpec, record: GenerationRecord, counts: StoreCounts) -> dict[str, object]:
    return {
        "name": spec.name,
        "kind": spec.kind,
        "analyzer": record.analyzer,
        "generation": record.id,
        "documents": counts.documents,
        "passages": counts.passages,
        "encoded": counts.encoded,
        "dense_encoder": record.dense_encoder,
        "vdr_encoder": record.vdr_encoder,
    }


@router.get(
    "/v1/collections",
    tags=["collections"],
    summary="Collections and what they hold",
    responses={200: {"model": CollectionsAnswer}},
    response_model=None,
)
@requires(Role.SEARCH)
def collections(app: AppDep, caller: CallerDep) -> Response:
    answers = []
    for name in app.catalog.names():
        if caller.sees(name):
            engine = app.catalog.engine(name)
            answers.append(_shown(app.catalog.spec(name), engine.record, engine.snapshot().reader.counts()))
    return json_answer({"collections": answers})


@router.post(
    "/v1/collections",
    tags=["collections"],
    summary="Make a collection",
    status_code=201,
    responses={201: {"model": CollectionAnswer}, **NOT_FOUND, **CONFLICT},
    response_model=None,
)
@requires(Role.ADMIN, audited=True)
def create_collection(body: CollectionBody, app: AppDep, caller: CallerDep) -> Response:
    caller.on(body.name)
    spec = body.spec()
    if body.annotate_with is not None:
        app.catalog.spec(caller.on(body.annotate_with, Role.SEARCH))
    record = new_record(app, spec)
    app.catalog.create(spec, record)
    if body.annotate_with is not None:
        annotate_always(app, spec.name, Annotation(body.annotate_with))
    return json_answer(_shown(spec, record, StoreCounts(0, 0, 0, 0)), 201)
