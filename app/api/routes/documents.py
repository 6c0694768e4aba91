"""Routes that upsert, read and delete documents."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict
from typing import Annotated

import orjson
from fastapi import Path, Query, Response
from fastapi.responses import FileResponse, StreamingResponse

from hyblink.app.access.keys import Role
from hyblink.app.api.answers import CONFLICT, NOT_FOUND, Collection, Limit, json_answer
from hyblink.app.api.dependencies import AppDep, CallerDep, Service, ServiceDep, guarded_router, requires
from hyblink.app.api.schemas.documents import (
    BulkAnswer,
    BulkBody,
    BulkItemAnswer,
    DeleteBody,
    DeletedAnswer,
    DocumentAnswer,
    DocumentsAnswer,
)
from hyblink.app.core.errors import ConflictError, InvalidInputError, NotFoundError
from hyblink.app.core.filters import Filter, parse_filter
from hyblink.app.core.types.collections import CollectionSpec
from hyblink.app.core.types.documents import BulkResult
from hyblink.app.operations.collections import ensure_collection
from hyblink.app.operations.listing import delete_all, lines_of, listed, matching_ids, page_of
from hyblink.app.operations.originals import Original, original_of

router = guarded_router()
_INERT = {"Content-Security-Policy": "default-src 'none'; sandbox", "X-Content-Type-Options": "nosniff"}
_SHOWN = 1000
FilterText = Annotated[
    str | None, Query(alias="filter", description="A metadata filter as JSON, as in a search.", max_length=10_000)
]
DocumentId = Annotated[str, Path(description="The document's id.", min_length=1, max_length=512)]


def written(service: Service, collection: str, result: BulkResult) -> Response:
    """Return the response to a bulk request, and count its items in the metrics."""
    for item in result.items:
        service.metrics.documents.labels(item.status).inc()
    return json_answer(
        {
            "errors": result.errors,
            "generation": service.app.catalog.current(collection),
            "change": result.change,
            "items": [asdict(item) for item in result.items],
        }
    )


def removed(result: BulkResult, otherwise: str) -> Response:
    """Return the response to the deletion of one item. Raises NotFoundError with `otherwise` if it did not exist."""
    item = result.items[0]
    if item.status != "deleted":
        raise NotFoundError(otherwise, received=item.id)
    return json_answer(asdict(item))


@router.post(
    "/v1/documents:bulk",
    tags=["documents"],
    summary="Upsert documents, item by item",
    description="At most {api.max_bulk_documents} documents and {api.max_body_bytes} bytes. "
    "When it is answered, what was accepted is durable and the next search sees it.",
    responses={200: {"model": BulkAnswer}, **NOT_FOUND, **CONFLICT},
    response_model=None,
)
@requires(Role.INGEST, collection="default")
def bulk(body: BulkBody, service: ServiceDep, caller: CallerDep, collection: Collection = "default") -> Response:
    app = service.app
    caller.on(collection)
    if ensure_collection(app, CollectionSpec(collection)).kind == "entities":
        raise ConflictError("the collection is a knowledge base", received=collection, expected="entities:bulk")
    return written(service, collection, app.documents.bulk(collection, body.documents))


@router.get(
    "/v1/documents",
    tags=["documents"],
    summary="The documents of a collection by id, all or those that pass a filter",
    responses={200: {"model": DocumentsAnswer}, **NOT_FOUND},
    response_model=None,
)
@requires(Role.INGEST, collection="default")
def list_documents(
    app: AppDep,
    caller: CallerDep,
    collection: Collection = "default",
    only: FilterText = None,
    after: Annotated[str, Query(description="Only ids after this one.", max_length=512)] = "",
    limit: Limit = 50,
) -> Response:
    caller.on(collection)
    page = page_of(app, collection, _tree(only), after, limit)
    shown = [
        {
            "id": one.id, "title": one.title, "lang": one.lang, "metadata": dict(one.metadata),
            "characters": len(one.text),
        }
        for one in page.documents
    ]  # fmt: skip
    return json_answer({"documents": shown, "total": page.total, "next": page.last if page.left else ""})


@router.get(
    "/v1/documents:export",
    tags=["documents"],
    summary="Whole documents as JSON lines, all or those that pass a filter",
    description="They can be ingested again as they are. They are those of the moment of the request.",
    responses={200: {"content": {"application/x-ndjson": {}}, "description": "A document a line."}, **NOT_FOUND},
    response_model=None,
)
@requires(Role.INGEST, collection="default")
def export_documents(
    app: AppDep, caller: CallerDep, collection: Collection = "default", only: FilterText = None
) -> Response:
    caller.on(collection)
    ids = matching_ids(app, collection, _tree(only))
    name = f"{collection}.jsonl"
    return StreamingResponse(
        lines_of(app, collection, ids),
        media_type="application/x-ndjson",
        headers={"Content-Disposition": f'attachment; filename="{name}"', **_INERT},
    )


@router.post(
    "/v1/documents:delete",
    tags=["documents"],
    summary="Delete documents by id, or all that pass a filter",
    responses={200: {"model": DeletedAnswer}, **NOT_FOUND, **CONFLICT},
    response_model=None,
)
@requires(Role.INGEST, collection="default")
def delete_documents(body: DeleteBody, app: AppDep, caller: CallerDep) -> Response:
    caller.on(body.collection)
    if (body.ids is None) == (body.filter is None):
        raise InvalidInputError("what to delete?", received=body.model_dump(), expected="either ids or filter")
    if body.filter is not None:
        ids = matching_ids(app, body.collection, parse_filter(body.filter))
    else:
        ids = [one.id for one in listed(app, body.collection, list(dict.fromkeys(body.ids or ())))]
    count = len(ids) if body.dry_run else delete_all(app, body.collection, ids)
    return json_answer({"deleted": count, "dry_run": body.dry_run, "ids": ids[:_SHOWN]})


def _tree(given: str | None) -> Filter | None:
    """The filter of a query parameter. Raises InvalidInputError."""
    if given is None:
        return None
    try:
        return parse_filter(orjson.loads(given))
    except orjson.JSONDecodeError as error:
        raise InvalidInputError(
            f"the filter is no JSON: {error}", received=given, expected='such as {"term": …}'
        ) from error


@router.get(
    "/v1/documents/{document_id:path}/source",
    tags=["documents"],
    summary="The file that a document was read from",
    description="A PDF, plain text, or bytes to save; browsers run nothing of it. Where the file is gone, the stored "
    "text; the header `Hyblink-Source` says which: `file`, or `text` and why. "
    "`api.serve_originals` turns it off.",
    responses={200: {"content": {"*/*": {}}, "description": "The file, or the stored text."}, **NOT_FOUND},
    response_model=None,
)
@requires(Role.SEARCH, collection="default")
def get_source(document_id: DocumentId, app: AppDep, caller: CallerDep, collection: Collection = "default") -> Response:
    caller.on(collection)
    try:
        document = app.documents.get(collection, document_id)
    except NotFoundError:
        with suppress(NotFoundError):  # a document whose own id ends like this
            return json_answer(app.documents.get(collection, f"{document_id}/source"))
        raise
    original = Original("", why="api.serve_originals is off")
    if app.settings.api.serve_originals:
        original = original_of(app, collection, document)
    if original.path is None:
        headers = {"Hyblink-Source": f"text; {original.why}", **_INERT}
        return Response(document.text, media_type="text/plain; charset=utf-8", headers=headers)
    return FileResponse(
        original.path,
        media_type=original.content_type,
        filename=original.name,
        content_disposition_type="attachment" if original.content_type == "application/octet-stream" else "inline",
        headers={"Hyblink-Source": "file", **_INERT},
    )


@router.get(
    "/v1/documents/{document_id:path}",
    tags=["documents"],
    summary="A document as it was sent",
    responses={200: {"model": DocumentAnswer}, **NOT_FOUND},
    response_model=None,
)
@requires(Role.SEARCH, collection="default")
def get_document(
    document_id: DocumentId, app: AppDep, caller: CallerDep, collection: Collection = "default"
) -> Response:
    caller.on(collection)
    return json_answer(app.documents.get(collection, document_id))


@router.delete(
    "/v1/documents/{document_id:path}",
    tags=["documents"],
    summary="Delete a document",
    responses={200: {"model": BulkItemAnswer}, **NOT_FOUND, **CONFLICT},
    response_model=None,
)
@requires(Role.INGEST, collection="default")
def delete_document(
    document_id: DocumentId, app: AppDep, caller: CallerDep, collection: Collection = "default"
) -> Response:
    caller.on(collection)
    return removed(app.documents.delete(collection, [document_id]), "no such document")
