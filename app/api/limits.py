"""ASGI middlewares: limit the size of request bodies, and accept only loopback host names."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from urllib.parse import urlsplit

import orjson
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hyblink.app.access.authorize import is_loopback
from hyblink.app.core.errors import TooLargeError


def _is_local(origin: str) -> bool:
    try:
        return is_loopback(urlsplit(origin).hostname or "")
    except ValueError:
        return False


async def _refuse(send: Send, status: int, code: str, message: str, received: str, expected: str) -> None:
    body = orjson.dumps({"error": {"code": code, "message": message, "received": received, "expected": expected}})
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Body:
    """The size of the current request's body in bytes: declared, read so far (`seen`), and allowed."""

    def __init__(self, declared: int, limit: int) -> None:
        self.declared = declared
        self.limit = limit
        self.seen = 0

    def lower(self, limit: int) -> None:
        """Lower the limit for this request. Raises TooLargeError if the declared or read size is above it."""
        self.limit = min(self.limit, limit)
        if max(self.declared, self.seen) > self.limit:
            raise TooLargeError(
                "the body is too large for this key",
                received=f"{max(self.declared, self.seen)} bytes",
                expected=f"at most {self.limit} bytes",
            )


BODY: ContextVar[Body | None] = ContextVar("body", default=None)


class BodyLimit:
    """Refuses bodies over `limit` bytes with status 413, even without Content-Length. `others`: limits by path."""

    def __init__(self, app: ASGIApp, limit: int, others: Mapping[str, int]) -> None:
        self._app = app
        self._limit = limit
        self._others = others

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._others.get(scope["path"], self._limit)
        expected = f"at most {limit} bytes"
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > limit:
            await _refuse(send, 413, "too_large", "the body is too large", f"{int(declared)} bytes", expected)
            return
        body = Body(int(declared) if declared.isdigit() else 0, limit)
        token = BODY.set(body)

        async def bounded() -> Message:
            message = await receive()
            body.seen += len(message.get("body", b""))
            if body.seen > body.limit:
                raise HTTPException(413, f"the body is too large; expected at most {body.limit} bytes")
            return message

        try:
            await self._app(scope, bounded, send)
        finally:
            BODY.reset(token)


class LoopbackHosts:
    """Refuses requests with status 403 if the Host header is not a loopback name, or the Origin is another machine's.

    Browsers send the page's origin with every request that can change data.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = dict(scope["headers"])
            host = headers.get(b"host", b"").decode("latin-1")
            name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
            origin = headers.get(b"origin", b"").decode("latin-1")
            expected = "localhost or 127.0.0.1"
            if host and not is_loopback(name):
                said = "an open door answers to loopback names only"
                await _refuse(send, 403, "forbidden", said, host, expected)
                return
            if origin and not _is_local(origin):
                said = "an open door answers to pages of this machine only"
                await _refuse(send, 403, "forbidden", said, origin, expected)
                return
        await self._app(scope, receive, send)
