"""Limits of requests that hold before anything of their bodies is read: size, time, memory, origin."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import orjson
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hyblink.app.access.authorize import is_loopback
from hyblink.app.core.errors import RateLimitedError, TooLargeError


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


_SLOWEST = 50_000
"""Bytes a second that a client must send at least."""
BODY: ContextVar[Body | None] = ContextVar("body", default=None)


class BodyLimit:
    """Refuses bodies over `limit` bytes with status 413, even without Content-Length. `others`: limits by path.

    A body must be there after `seconds` and one second more for each `_SLOWEST` bytes; else status 408.
    """

    def __init__(self, app: ASGIApp, limit: int, others: Mapping[str, int], seconds: float) -> None:
        self._app = app
        self._limit = limit
        self._others = others
        self._seconds = seconds

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

        began = asyncio.get_running_loop().time()
        arrived = False

        async def bounded() -> Message:
            nonlocal arrived
            if arrived:
                return await receive()  # it waits for the client to leave
            try:
                async with asyncio.timeout_at(began + self._seconds + body.seen / _SLOWEST):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(
                    408,
                    f"the body did not arrive in time; expected within {self._seconds:g} s, and {_SLOWEST} bytes/s",
                    {"Connection": "close"},
                ) from None
            body.seen += len(message.get("body", b""))
            if body.seen > body.limit:
                raise HTTPException(413, f"the body is too large; expected at most {body.limit} bytes")
            arrived = not message.get("more_body", False)
            return message

        try:
            await self._app(scope, bounded, send)
        finally:
            BODY.reset(token)


class BodyMemory:
    """Limits the bytes of all bodies that are held in memory at the same time. Used by the event loop's thread only."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0

    @contextmanager
    def held(self) -> Iterator[Callable[[int], None]]:
        """A function that adds bytes to those that a request holds, until the end of the context.

        The function raises RateLimitedError above the limit. One body alone is always let in.
        """
        mine = 0

        def take(size: int) -> None:
            nonlocal mine
            if size and self._held > mine and self._held + size > self._limit:
                raise RateLimitedError(
                    "too many bytes are being received at once", expected=f"at most {self._limit}; retry in a second"
                )
            self._held += size
            mine += size

        try:
            yield take
        finally:
            self._held -= mine


def not_of_this_machine(hosts: Sequence[str], origin: str | None) -> tuple[str, str] | None:
    """Why a request without a key may come from another machine's web page, as (reason, received); None if it cannot.

    `hosts` are its Host headers and `origin` is its Origin header. Browsers send the page's origin with every request
    that can change data. A page of another port has another origin. The name in Host is the page's own, even if its DNS
    entry was changed to point at this machine (DNS rebinding).
    """
    if len(hosts) != 1 or not is_loopback(_without_port(hosts[0])):
        return "without a key only loopback names are answered", ", ".join(hosts) or "no Host header"
    if origin is not None and origin.partition("://")[2] != hosts[0]:
        return "without a key only pages of this service itself are answered", origin
    return None


def _without_port(host: str) -> str:
    """
    >>> [_without_port(host) for host in ("localhost:80", "[::1]:80", "[::1]", "127.0.0.1", "127.0.0.1:80,evil", "")]
    ['localhost', '[::1]', '[::1]', '127.0.0.1', '127.0.0.1:80,evil', '']
    """
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host
