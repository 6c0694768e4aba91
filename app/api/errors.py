"""Turn errors into JSON responses with a code, a message, the received value and the expected one."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from hyblink.app.api.answers import json_answer
from hyblink.app.core.errors import HyblinkError, NotFoundError, UserError, shown

log = logging.getLogger(__name__)
_INTERNAL = re.compile(r"body|str|[A-Z]\w*|.*[\[<(].*")
"""Parts of a validation error's location that are names of internal types, not of the client's fields."""
_MAX_MESSAGE = 500
_CODES = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}


def _answer(
    status: int, code: str, message: str, received: str | None, expected: str | None, headers: Any = None
) -> Response:
    detail = {"code": code, "message": message, "received": received, "expected": expected}
    return json_answer({"error": detail}, status, headers)


def error_answer(error: HyblinkError) -> Response:
    """Return the response to a `HyblinkError`. Details of internal errors (status 500) are not shown to the client."""
    headers = {}
    if error.status == 429:
        headers["Retry-After"] = str(math.ceil(getattr(error, "retry_after_s", 1)))
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if not isinstance(error, UserError) and error.status == 500:
        damaged = "the server's data is damaged; run `hyblink fsck`"
        return _answer(error.status, error.code, damaged, None, None, headers)
    return _answer(error.status, error.code, error.message, error.received, error.expected, headers)


def bad_request(problem: Mapping[str, Any], content_type: str | None) -> dict[str, str]:
    """Return the error body for a pydantic validation error: the field, the received value, the expected one."""
    place = ".".join(str(part) for part in problem["loc"] if not _INTERNAL.fullmatch(str(part))) or "the body"
    said = str(problem["msg"]).removeprefix("Value error, ")  # pydantic's prefix to messages of our own validators
    received, expected = shown(problem.get("input")), said.removeprefix("Input should be ")
    message = f"{place}: {said}"
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


def answer_errors(api: FastAPI) -> None:
    """Install the exception handlers that turn all errors into JSON error responses."""

    @api.exception_handler(HyblinkError)
    async def hyblink_error(request: Request, error: HyblinkError) -> Response:
        if isinstance(error, NotFoundError):
            caller = getattr(request.state, "caller", None)
            error = error.among(caller.sees if caller is not None else lambda _: False)
        if not isinstance(error, UserError):
            log.error("%s: %s", error.code, error)
        return error_answer(error)

    @api.exception_handler(RequestValidationError)
    async def validation_error(request: Request, error: RequestValidationError) -> Response:
        return json_answer({"error": bad_request(error.errors()[0], request.headers.get("content-type"))}, 400)

    @api.exception_handler(HTTPException)
    async def http_error(_: Request, error: HTTPException) -> Response:
        code = _CODES.get(error.status_code, "bad_request")
        headers = dict(error.headers or {})
        return _answer(error.status_code, code, str(error.detail), None, "see /openapi.json", headers)

    @api.exception_handler(Exception)
    async def unforeseen(_: Request, error: Exception) -> Response:
        log.error("unforeseen error", exc_info=error)
        return _answer(500, "internal_error", "a fault of ours; the log has it", None, None)
