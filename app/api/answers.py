"""What routes share: parameters, who may call, JSON answers, and the errors that OpenAPI documents."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import orjson
from fastapi import Header, Query, Response

from app.api import models
from app.api.keys import ApiKey, Role

Authorization = Annotated[str | None, Header(description="`Bearer hyb_…`; not needed at an open loopback door.")]
Collection = Annotated[str, Query(description="The collection.", pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
Before = Annotated[str | None, Query(description="Only what is older than this id.", max_length=100)]
Limit = Annotated[int, Query(ge=1, le=1000, description="How many at most.")]
Allowed = Callable[[str | None, Role, str | None], ApiKey | None]
"""Who is asking: (header, role, collection) → the key, None at an open door. Raises where it may not."""

Responses = dict[int | str, dict[str, Any]]
ERRORS: Responses = {
    400: {
        "model": models.ErrorAnswer,
        "description": "The request is malformed: says what was received and expected.",
    },
    401: {"model": models.ErrorAnswer, "description": "No API key, or an unknown one."},
    403: {"model": models.ErrorAnswer, "description": "The key's role or collections do not allow it."},
    413: {"model": models.ErrorAnswer, "description": "The body is over the stated limit."},
    500: {"model": models.ErrorAnswer, "description": "A fault of ours."},
    503: {"model": models.ErrorAnswer, "description": "A part that is needed is missing or down."},
    507: {"model": models.ErrorAnswer, "description": "The disk is full; nothing was changed."},
}
NOT_FOUND: Responses = {404: {"model": models.ErrorAnswer, "description": "No such thing."}}
CONFLICT: Responses = {409: {"model": models.ErrorAnswer, "description": "It exists, or is being written."}}
BUSY: Responses = {429: {"model": models.ErrorAnswer, "description": "Too many searches at once; see Retry-After."}}


def json_answer(value: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A value as a JSON answer."""
    body = orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)
    return Response(body, status, media_type="application/json", headers=headers)
