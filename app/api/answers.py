"""What routes share: parameters, who may call, JSON answers, and the errors that OpenAPI documents."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import orjson
from fastapi import Header, Query, Response

from hyblink.app.access.keys import ApiKey, Role
from hyblink.app.api import schemas as models
from hyblink.app.core.errors import shown

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
BUSY: Responses = {429: {"model": models.ErrorAnswer, "description": "Too many at once; see Retry-After."}}


def json_answer(value: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A value as a JSON answer."""
    body = orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)
    return Response(body, status, media_type="application/json", headers=headers)


_INTERNAL = re.compile(r"body|str|[A-Z]\w*|.*[\[<(].*")
"""Parts of a place that no caller wrote: names of our own types."""
_MAX_MESSAGE = 500


def bad_request(problem: Mapping[str, Any], content_type: str | None) -> dict[str, str]:
    """What a client is told whose request has not the form of its route: where, what was received, what is expected."""
    place = ".".join(str(part) for part in problem["loc"] if not _INTERNAL.fullmatch(str(part))) or "the body"
    received, expected = shown(problem.get("input")), str(problem["msg"]).removeprefix("Input should be ")
    message = f"{place}: {problem['msg']}"
    if problem["type"] == "json_invalid":
        message = f"the body is not JSON at character {problem['loc'][-1]}: {problem.get('ctx', {}).get('error', '')}"
        expected = "JSON"
    elif place == "the body" and problem["type"] != "missing" and "json" not in (content_type or ""):
        message, received = "the body was not read as JSON", f"Content-Type: {content_type}"
        expected = "Content-Type: application/json"
    return {
        "code": "invalid_input",
        "message": message.encode("utf-8", "backslashreplace").decode()[:_MAX_MESSAGE],
        "received": received,
        "expected": f"{expected}; see /openapi.json".encode("utf-8", "backslashreplace").decode()[:_MAX_MESSAGE],
    }
