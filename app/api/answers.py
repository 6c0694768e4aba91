"""What routes share: JSON answers, and the errors that OpenAPI documents."""

from __future__ import annotations

from typing import Any

import orjson
from fastapi import Response

from app.api import models

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
