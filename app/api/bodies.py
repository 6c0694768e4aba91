"""Reads and validates request bodies, after the caller is authorized and in a thread, and bounds what requests cost."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import TypeAdapter, ValidationError

from hyblink.app.core.budget import BUDGET, Budget, Costs
from hyblink.app.core.errors import InvalidInputError


class ParsedRequest(Request):
    """A request whose body is parsed and validated already."""

    def __init__(self, request: Request, parsed: object) -> None:
        super().__init__(request.scope, request.receive)
        self._parsed = parsed

    async def body(self) -> bytes:
        """Empty if there was no body."""
        return b"" if self._parsed is None else b"{}"

    async def json(self) -> object:
        """The validated body."""
        return self._parsed


async def received(request: Request, declared: int, take: Callable[[int], None]) -> bytes:
    """The whole body. `take` is told of its bytes: of the declared ones before any is read."""
    take(declared)
    taken, seen = declared, 0
    chunks = []
    async for chunk in request.stream():
        chunks.append(chunk)
        seen += len(chunk)
        if seen > taken:
            take(seen - taken)
            taken = seen
    return b"".join(chunks)


def check_content_type(request: Request) -> None:
    """Refuse what is not JSON before it is read. Raises InvalidInputError."""
    told = request.headers.get("content-type")
    media = (told or "").partition(";")[0].strip().lower()
    kind, _, form = media.partition("/")
    if kind != "application" or not (form == "json" or form.endswith("+json")):
        error = InvalidInputError(
            "the body was not read as JSON", expected="Content-Type: application/json; see /openapi.json"
        )
        error.received = f"Content-Type: {told}"
        raise error


def parsed(raw: bytes, read: TypeAdapter[Any]) -> object:
    """The validated body. Raises RequestValidationError as FastAPI does. It takes long for a large body."""
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        at, said = (error.pos, error.msg) if isinstance(error, json.JSONDecodeError) else (0, str(error))
        problem = {"type": "json_invalid", "loc": ("body", at), "msg": "", "input": {}, "ctx": {"error": said}}
        raise RequestValidationError([problem]) from None
    try:
        return read.validate_python(value)
    except ValidationError as error:
        found = error.errors(include_url=False)
        raise RequestValidationError([{**one, "loc": ("body", *one["loc"])} for one in found]) from None


@asynccontextmanager
async def budgeted(request: Request, costs: Costs) -> AsyncIterator[None]:
    """Give the request a budget inside. It ends when the client closes the connection."""
    budget = Budget(costs)

    async def wait_for_the_client_to_leave() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        budget.leave()

    token = BUDGET.set(budget)
    waiting = asyncio.create_task(wait_for_the_client_to_leave())
    try:
        yield
    finally:
        waiting.cancel()
        BUDGET.reset(token)
