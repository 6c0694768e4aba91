"""Shared by the routes: parameters, JSON responses, and the error responses in OpenAPI."""

from __future__ import annotations

from typing import Annotated, Any

import orjson
from fastapi import Header, Query, Response

from hyblink.app.api.schemas.common import ErrorAnswer
from hyblink.app.core.names import COLLECTION_PATTERN

Authorization = Annotated[str | None, Header(description="`Bearer hyb_…`; not needed at an open loopback door.")]
Collection = Annotated[str, Query(description="The collection.", pattern=COLLECTION_PATTERN)]
KnowledgeBaseName = Annotated[str, Query(description="The knowledge base.", pattern=COLLECTION_PATTERN)]
Before = Annotated[str | None, Query(description="Only what is older than this id.", max_length=100)]
Limit = Annotated[int, Query(ge=1, le=1000, description="How many at most.")]

Responses = dict[int | str, dict[str, Any]]
ERRORS: Responses = {
    400: {"model": ErrorAnswer, "description": "The request is malformed: says what was received and expected."},
    401: {"model": ErrorAnswer, "description": "No API key, or an unknown one."},
    403: {"model": ErrorAnswer, "description": "The key's role or collections do not allow it."},
    413: {"model": ErrorAnswer, "description": "The body is over the stated limit."},
    500: {"model": ErrorAnswer, "description": "A fault of ours."},
    503: {"model": ErrorAnswer, "description": "A part that is needed is missing or down."},
    507: {"model": ErrorAnswer, "description": "The disk is full; nothing was changed."},
}
NOT_FOUND: Responses = {404: {"model": ErrorAnswer, "description": "No such thing."}}
CONFLICT: Responses = {409: {"model": ErrorAnswer, "description": "It exists, or is being written."}}
BUSY: Responses = {429: {"model": ErrorAnswer, "description": "Too many at once; see Retry-After."}}


def json_answer(value: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return a response with a value as JSON."""
    body = orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)
    return Response(body, status, media_type="application/json", headers=headers)
