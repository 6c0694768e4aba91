"""Routes that list, create, copy, rename, empty and remove collections."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path, Response

from hyblink.app.access.keys import Role
from hyblink.app.api.answers import CONFLICT, NOT_FOUND, json_answer
from hyblink.app.api.dependencies import AppDep, CallerDep, guarded_router, requires
from hyblink.app.api.schemas.collections import (
    ChangedAnswer,
    CollectionAnswer,
    CollectionBody,
    CollectionsAnswer,
    NameBody,
)
from hyblink.app.core.names import COLLECTION_PATTERN
from hyblink.app.core.types.collections import Annotation, CollectionSpec, GenerationRecord
from hyblink.app.core.types.documents import StoreCounts
from hyblink.app.operations.annotation import annotate_always
from hyblink.app.operations.collections import new_record
from hyblink.app.operations.renaming import copy_collection, empty_collection, rename_collection

router = guarded_router()
Name = Annotated[str, Path(description="The collection.", pattern=COLLECTION_PATTERN)]


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


@router.post(
    "/v1/collections/{name}:copy",
    tags=["collections"],
    summary="Copy a collection with its vectors, ranking profile and judgements",
    responses={200: {"model": ChangedAnswer}, **NOT_FOUND, **CONFLICT},
    response_model=None,
)
@requires(Role.ADMIN, audited=True)
def copy(name: Name, body: NameBody, app: AppDep, caller: CallerDep) -> Response:
    caller.on(name)
    caller.on(body.name)
    return json_answer({"name": body.name, "documents": copy_collection(app, name, body.name)})


@router.post(
    "/v1/collections/{name}:rename",
    tags=["collections"],
    summary="Rename a collection; its older generations and clicks go",
    responses={200: {"model": ChangedAnswer}, **NOT_FOUND, **CONFLICT},
    response_model=None,
)
@requires(Role.ADMIN, audited=True)
def rename(name: Name, body: NameBody, app: AppDep, caller: CallerDep) -> Response:
    caller.on(name)
    caller.on(body.name)
    return json_answer({"name": body.name, "documents": rename_collection(app, name, body.name)})


@router.post(
    "/v1/collections/{name}:empty",
    tags=["collections"],
    summary="Delete all documents of a collection; its settings, profiles and judgements stay",
    responses={200: {"model": ChangedAnswer}, **NOT_FOUND, **CONFLICT},
    response_model=None,
)
@requires(Role.ADMIN, audited=True)
def empty(name: Name, app: AppDep, caller: CallerDep) -> Response:
    caller.on(name)
    return json_answer({"name": name, "documents": empty_collection(app, name)})


@router.delete(
    "/v1/collections/{name}",
    tags=["collections"],
    summary="Remove a collection with all its generations",
    responses={200: {"model": ChangedAnswer}, **NOT_FOUND, **CONFLICT},
    response_model=None,
)
@requires(Role.ADMIN, audited=True)
def remove(name: Name, app: AppDep, caller: CallerDep) -> Response:
    caller.on(name)
    count = app.catalog.engine(name).store.reader().counts().documents
    app.catalog.delete(name)
    return json_answer({"name": name, "documents": count})
