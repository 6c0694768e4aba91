"""Authorization of requests, and the dependencies that routes receive.

A route declares with `requires` the role that it needs, and which of its query parameters name collections.
`GuardedRoute` checks this before FastAPI reads the body, so that a refused request costs only its headers. Routes
receive the authorized caller as a `Caller`.
"""

from __future__ import annotations

import logging
import math
import secrets
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, cast

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.routing import APIRoute
from prometheus_client import Gauge
from pydantic import TypeAdapter
from starlette.datastructures import Headers

from hyblink.app.access.audit import Audit
from hyblink.app.access.authorize import authorize, check_everywhere, identify, permit
from hyblink.app.access.keys import ApiKey, KeyStore, Role
from hyblink.app.access.oidc import TokenVerifier
from hyblink.app.access.rate_limits import RateLimits
from hyblink.app.api.answers import Authorization
from hyblink.app.api.bodies import ParsedRequest, budgeted, check_content_type, parsed, received
from hyblink.app.api.limits import BODY, BodyMemory, not_of_this_machine
from hyblink.app.api.metrics import Metrics
from hyblink.app.application import App
from hyblink.app.core.budget import Costs, check_presence
from hyblink.app.core.errors import ForbiddenError, HyblinkError, RateLimitedError
from hyblink.app.core.names import COLLECTION_NAME, check_name

log = logging.getLogger(__name__)
_Endpoint = TypeVar("_Endpoint", bound=Callable[..., Any])
_CALL: ContextVar[str] = ContextVar("call", default="")
"""A random id of the current API call, which the client cannot choose."""


@dataclass(frozen=True, slots=True)
class Access:
    """The access rule of a route.

    `role` None allows everybody. `collections` are the query parameters that name collections, with their defaults.
    """

    role: Role | None
    collections: tuple[tuple[str, str | None], ...] = ()
    everywhere: bool = False
    """The route concerns the whole installation, so keys that are limited to collections are refused."""
    audited: bool = False
    """Calls are written to the audit log, refused ones too."""
    budgeted: bool = False
    """Calls have a budget of CPU time and memory (`core/budget.py`), and stop when the client leaves."""


def requires(
    role: Role | None,
    *,
    everywhere: bool = False,
    audited: bool = False,
    budgeted: bool = False,
    **collections: str | None,
) -> Callable[[_Endpoint], _Endpoint]:
    """Declare the access rule of a route: `@requires(Role.INGEST, collection="default")` under `@router.post(…)`.

    Keywords name the query parameters that hold collections; their values are the parameters' defaults.
    """

    def declared(endpoint: _Endpoint) -> _Endpoint:
        access = Access(role, tuple(collections.items()), everywhere, audited, budgeted)
        endpoint.__hyblink_access__ = access  # type: ignore[attr-defined]
        return endpoint

    return declared


def access_of(endpoint: Callable[..., Any]) -> Access | None:
    """Return the access rule that an endpoint declares with `requires`; None if it declares none."""
    return cast("Access | None", getattr(endpoint, "__hyblink_access__", None))


class Slots:
    """Limits the number of concurrent requests of a kind. Requests over the limit are refused."""

    def __init__(self, what: str, limit: int, gauge: Gauge) -> None:
        self._what = what
        self._slots = threading.BoundedSemaphore(limit)
        self._limit = limit
        self._gauge = gauge

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Hold a slot during the request. Raises RateLimitedError if none is free."""
        check_presence()
        if not self._slots.acquire(blocking=False):
            raise RateLimitedError(
                f"too many {self._what} at once", expected=f"at most {self._limit}; retry in a second"
            )
        self._gauge.inc()
        try:
            yield
        finally:
            self._gauge.dec()
            self._slots.release()


class Grouped:
    """Groups events that happen within `seconds` of each other. Thread-safe."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._last = -math.inf
        self._count = 0

    def take(self) -> int:
        """The number of events since the last group, this one included; 0 if this one has to wait for the next."""
        with self._lock:
            self._count += 1
            if time.monotonic() - self._last < self._seconds:
                return 0
            self._last = time.monotonic()
            count, self._count = self._count, 0
            return count


@dataclass(slots=True)
class Service:
    """The state of an API process: the application, authorization, rate limits, metrics, audit log.

    `allow_anonymous` means that requests without a key are allowed. `warm` is set once the encoders are loaded.
    """

    app: App
    keys: KeyStore
    rates: RateLimits
    audit: Audit
    tokens: TokenVerifier | None
    allow_anonymous: bool
    metrics: Metrics
    searches: Slots
    links: Slots
    bodies: BodyMemory
    strangers: Grouped
    costs: Costs
    warm: threading.Event

    def open_to(self, headers: Headers) -> bool:
        """Return whether a request without a key may do everything. Raises ForbiddenError for a web page's request.

        That is so on a loopback address, for as long as there is no usable key.
        """
        if not self.allow_anonymous or self.keys.any_active():
            return False
        problem = not_of_this_machine(headers.getlist("host"), headers.get("origin"))
        if problem is not None:
            said, received = problem
            raise ForbiddenError(said, received=received, expected="localhost or 127.0.0.1, or an API key")
        return True

    def admit(self, headers: Headers, access: Access, query: Callable[[str], str | None]) -> Caller:
        """Authorize a request by its headers and its collections; return the caller.

        Also counts the request against the key's rate limit, and applies the key's body limit. Raises
        UnauthorizedError, ForbiddenError, RateLimitedError, TooLargeError.
        """
        assert access.role is not None
        header = headers.get("authorization")
        anonymous = header is None and self.open_to(headers)
        key = authorize(self.keys, header, access.role, None, allow_anonymous=anonymous, tokens=self.tokens)
        if key is not None:
            self.rates.take(key, _CALL.get())
            if key.max_bytes and (body := BODY.get()) is not None:
                body.lower(key.max_bytes)
        caller = Caller(key, access.role)
        if access.everywhere:
            check_everywhere(key)
        for parameter, otherwise in access.collections:
            name = query(parameter) or otherwise
            if name is not None and COLLECTION_NAME.fullmatch(name):  # other names fail validation later
                caller.on(name)
        return caller

    def note_act(self, request: Request, status: int, request_id: str) -> None:
        """Write a request and its status to the audit log. A failure to do so is only logged."""
        by = self._actor(request.headers.get("authorization"), status)
        more = ""
        if status == 401:  # anybody can send these: one entry a minute tells of all
            count = self.strangers.take()
            if not count:
                return
            more = f" (and {count - 1} more requests without a usable key)" if count > 1 else ""
        query = f"?{request.url.query}" if request.url.query else ""
        try:
            act = f"{request.method} {request.url.path}{query}"[: 500 - len(more)] + more
            self.audit.add(by, act, str(status), request_id)
        except HyblinkError as error:
            log.error("an act could not be kept in the audit log: %s", error)

    def _actor(self, header: str | None, status: int) -> str:
        if header is None and status != 401:
            return "open door"
        try:
            found = identify(self.keys, self.tokens, header or "")
        except HyblinkError:
            return "unknown"
        return f"key:{found.id}" if found.sha256 else f"token:{found.id} {found.note}"


@dataclass(frozen=True, slots=True)
class Caller:
    """The authorized caller of a route. `key` is None for an anonymous caller."""

    key: ApiKey | None
    role: Role

    def on(self, collection: str, role: Role | None = None) -> str:
        """Check that the caller has a role on a collection; return the collection's name.

        `role` None means the route's role. Raises InvalidInputError for an invalid name, and ForbiddenError.
        """
        check_name(collection)
        if self.key is not None:
            permit(self.key, role or self.role, collection)
        return collection

    def sees(self, collection: str) -> bool:
        """Return whether the caller has the route's role on a collection."""
        return self.key is None or self.key.allows(self.role, collection)

    @property
    def id(self) -> str:
        """The key's id, by which records name the caller; empty for an anonymous caller."""
        return "" if self.key is None else self.key.id


class GuardedRoute(APIRoute):
    """A route with an access rule, which is checked before the body is read. Raises TypeError without a rule."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        access = access_of(endpoint)
        if access is None:
            raise TypeError(f"{path} does not declare who may call it: put @requires(…) under its decorator")
        if access.role is not None:  # documents the header in OpenAPI even if the endpoint takes no caller
            options["dependencies"] = [*(options.get("dependencies") or ()), Depends(caller_of)]
        super().__init__(path, endpoint, **options)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        access = access_of(self.endpoint)
        assert access is not None
        if access.role is None:
            return handle

        read = None if self.body_field is None else TypeAdapter[Any](self.body_field.field_info.annotation)  # type: ignore[arg-type]

        async def guarded(request: Request) -> Response:
            service = service_of(request)
            # In a thread, because it can access the store or the identity provider.
            request.state.caller = await run_in_threadpool(
                service.admit, request.headers, access, request.query_params.get
            )
            if read is None:
                return await handled(request, service)
            check_content_type(request)
            declared = BODY.get()
            with service.bodies.held() as take:
                raw = await received(request, 0 if declared is None else declared.declared, take)
                content = None if not raw else await run_in_threadpool(parsed, raw, read)
                del raw
                return await handled(ParsedRequest(request, content), service)

        async def handled(request: Request, service: Service) -> Response:
            if not access.budgeted:
                return await handle(request)
            async with budgeted(request, service.costs):
                return await handle(request)

        return guarded


def guarded_router() -> APIRouter:
    """Return a router whose routes must declare an access rule with `requires`."""
    return APIRouter(route_class=GuardedRoute)


@contextmanager
def one_call() -> Iterator[None]:
    """Mark everything inside as one API call, which counts once against the rate limit."""
    token = _CALL.set(secrets.token_hex(8))
    try:
        yield
    finally:
        _CALL.reset(token)


def service_of(request: Request) -> Service:
    """Return the state of the API process."""
    api: FastAPI = request.app
    service: Service = api.state.service
    return service


def app_of(request: Request) -> App:
    """Return the application."""
    return service_of(request).app


def caller_of(request: Request, authorization: Authorization = None) -> Caller:
    """Return the caller that `GuardedRoute` has authorized. The header parameter is only for OpenAPI."""
    del authorization
    caller: Caller = request.state.caller
    return caller


AppDep = Annotated[App, Depends(app_of)]
CallerDep = Annotated[Caller, Depends(caller_of)]
ServiceDep = Annotated[Service, Depends(service_of)]
