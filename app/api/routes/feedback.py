"""Routes for judgements and clicks."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from fastapi import Query, Response

from hyblink.app.access.keys import Role
from hyblink.app.api.answers import NOT_FOUND, Collection, json_answer
from hyblink.app.api.dependencies import AppDep, CallerDep, guarded_router, requires
from hyblink.app.api.schemas.feedback import (
    ClickAnswer,
    ClickBody,
    FromClicksAnswer,
    JudgementsBody,
    QrelsAnswer,
    StoredAnswer,
)
from hyblink.app.feedback.feedback import MAX_AT_ONCE

router = guarded_router()


@router.post(
    "/v1/judgements",
    tags=["feedback"],
    summary="Judge how well documents answer queries",
    description=f"At most {MAX_AT_ONCE}; one that there is already of the same query and document is replaced.",
    responses={200: {"model": StoredAnswer}, **NOT_FOUND},
    response_model=None,
)
@requires(Role.INGEST)
def judge(body: JudgementsBody, app: AppDep, caller: CallerDep) -> Response:
    caller.on(body.collection)
    app.catalog.spec(body.collection)
    rows = [judgement.model_dump() for judgement in body.judgements]
    stored = app.feedback.judge(body.collection, rows, source="person", by=caller.id)
    return json_answer({"stored": stored})


@router.get(
    "/v1/judgements",
    tags=["feedback"],
    summary="All judgements of a collection, as queries and qrels",
    responses={200: {"model": QrelsAnswer}, **NOT_FOUND},
    response_model=None,
)
@requires(Role.INGEST, collection="default")
def judgements(app: AppDep, caller: CallerDep, collection: Collection = "default") -> Response:
    caller.on(collection)
    app.catalog.spec(collection)
    queries, qrels = app.feedback.qrels(collection)
    return json_answer({"queries": queries, "qrels": qrels})


@router.delete(
    "/v1/judgements",
    tags=["feedback"],
    summary="Withdraw a judgement",
    responses={200: {"model": StoredAnswer}, **NOT_FOUND},
    response_model=None,
)
@requires(Role.INGEST, collection="default")
def withdraw(
    app: AppDep,
    caller: CallerDep,
    query: Annotated[str, Query(description="The query.", min_length=1, max_length=2000)],
    document_id: Annotated[str, Query(description="The document.", min_length=1, max_length=512)],
    collection: Collection = "default",
) -> Response:
    caller.on(collection)
    app.feedback.withdraw(collection, query, document_id)
    return json_answer({"stored": 0})


@router.post(
    "/v1/clicks",
    tags=["feedback"],
    summary="A document of a logged search was clicked",
    description="`search_id` is in the answer to a search with `log`; the document has to be on that page.",
    responses={200: {"model": ClickAnswer}, **NOT_FOUND},
    response_model=None,
)
@requires(Role.SEARCH)
def click(body: ClickBody, app: AppDep, caller: CallerDep) -> Response:
    caller.on(app.feedback.collection_of(body.search_id))
    return json_answer({"rank": app.feedback.click(body.search_id, body.document_id)})


@router.post(
    "/v1/admin/judgements-from-clicks",
    tags=["administration"],
    summary="Make judgements of the click log, corrected for where hits stood",
    description="A position-based click model; documents that people have judged keep their grades.",
    responses={200: {"model": FromClicksAnswer}, **NOT_FOUND},
    response_model=None,
)
@requires(Role.ADMIN, collection="default", audited=True)
def from_clicks(
    app: AppDep,
    caller: CallerDep,
    collection: Collection = "default",
    min_views: Annotated[int, Query(ge=1, le=1_000_000, description="Least times that a document was shown.")] = 10,
) -> Response:
    caller.on(collection)
    app.catalog.spec(collection)
    return json_answer(asdict(app.feedback.judge_by_clicks(collection, min_views=min_views)[0]))
