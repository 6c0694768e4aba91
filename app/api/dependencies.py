"""Who may call a route, decided before its body is read; and what routes are given.

A route declares with `requires` which role it takes, and which of its query parameters name collections.
`GuardedRoute` asks before FastAPI reads the body: whoever may not call costs no more than the request's headers.
Routes get the verdict as a `Caller`.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, cast

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.routing import APIRoute
from prometheus_client import Gauge

from hyblink.app.access.audit import Audit
from hyblink.app.access.authorize import authorize, check_everywhere, identify, permit
from hyblink.app.access.keys import ApiKey, KeyStore, Role
from hyblink.app.access.oidc import TokenVerifier
from hyblink.app.access.rate_limits import RateLimits
from hyblink.app.api.answers import Authorization
from hyblink.app.api.limits import BODY
from hyblink.app.api.metrics import Metrics
from hyblink.app.application import App
from hyblink.app.core.errors import HyblinkError, RateLimitedError
from hyblink.app.core.names import COLLECTION_NAME, check_name

log = logging.getLogger(__name__)
_Endpoint = TypeVar("_Endpoint", bound=Callable[..., Any])
_CALL: ContextVar[str] = ContextVar("call", default="")
"""One call of the API, by a name that its caller does not choose."""


@dataclass(frozen=True, slots=True)
class Access:
    """What a route declares. Without a `role` anybody may call; `collections` are query parameters with defaults."""

    role: Role | None
    collections: tuple[tuple[str, str | None], ...] = ()
    everywhere: bool = False
    """It concerns the whole installation: keys that are limited to collections may not."""
    audited: bool = False
    """Calls are kept in the audit log, refused ones too."""


def requires(
    role: Role | None, *, everywhere: bool = False, audited: bool = False, **collections: str | None
) -> Callable[[_Endpoint], _Endpoint]:
    """Declares who may call a route: `@requires(Role.INGEST, collection="default")` under `@router.post(…)`.

    Keywords are query parameters that name collections, with what they are where a request does not give them.
    """

    def declared(endpoint: _Endpoint) -> _Endpoint:
        access = Access(role, tuple(collections.items()), everywhere, audited)
        endpoint.__hyblink_access__ = access  # type: ignore[attr-defined]
        return endpoint

    return declared


def access_of(endpoint: Callable[..., Any]) -> Access | None:
    """What a route has declared; None for what is no route of ours."""
    return cast("Access | None", getattr(endpoint, "__hyblink_access__", None))


class Slots:
    """At most so many requests of a kind at once; the next is told to come back."""

    def __init__(self, what: str, limit: int, gauge: Gauge) -> None:
        self._what = what
        self._slots = threading.BoundedSemaphore(limit)
        self._limit = limit
        self._gauge = gauge

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Hold one. Raises RateLimitedError where none is free."""
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


@dataclass(slots=True)
class Service:
    """What one API process keeps: the application, who may call it, what is counted."""

    app: App
    keys: KeyStore
    rates: RateLimits
    audit: Audit
    tokens: TokenVerifier | None
    open_door: bool
    metrics: Metrics
    searches: Slots
    links: Slots
    warm: threading.Event

    def admit(self, header: str | None, access: Access, query: Callable[[str], str | None]) -> Caller:
        """Whether a request may go on. Raises UnauthorizedError, ForbiddenError, RateLimitedError, TooLargeError."""
        assert access.role is not None
        key = authorize(self.keys, header, access.role, None, open_door=self.open_door, tokens=self.tokens)
        if key is not None:
            self.rates.take(key, _CALL.get())
            if key.max_bytes and (body := BODY.get()) is not None:
                body.lower(key.max_bytes)
        caller = Caller(key, access.role)
        if access.everywhere:
            check_everywhere(key)
        for parameter, otherwise in access.collections:
            name = query(parameter) or otherwise
            if name is not None and COLLECTION_NAME.fullmatch(name):  # others are refused for their form
                caller.on(name)
        return caller

    def note_act(self, request: Request, status: int, request_id: str) -> None:
        """Keep an act in the audit log, or an attempt at one."""
        by = self._actor(request.headers.get("authorization"), status)
        query = f"?{request.url.query}" if request.url.query else ""
        try:
            self.audit.add(by, f"{request.method} {request.url.path}{query}", str(status), request_id)
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
    """Who is calling; `key` is None at an open door."""

    key: ApiKey | None
    role: Role

    def on(self, collection: str, role: Role | None = None) -> str:
        """The collection's name, if the caller may act on it (in the route's role, or another).

        Raises InvalidInputError for a name that is none, ForbiddenError.
        """
        check_name(collection)
        if self.key is not None:
            permit(self.key, role or self.role, collection)
        return collection

    def sees(self, collection: str) -> bool:
        """Whether the caller may act on a collection in the route's role."""
        return self.key is None or self.key.allows(self.role, collection)

    @property
    def id(self) -> str:
        """By what the caller is named in records; empty at an open door."""
        return "" if self.key is None else self.key.id


class GuardedRoute(APIRoute):
    """A route that declares who may call it. The question is answered before the body is read."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        access = access_of(endpoint)
        if access is None:
            raise TypeError(f"{path} does not declare who may call it: put @requires(…) under its decorator")
        if access.role is not None:  # so that OpenAPI has the header, whether the route looks at the caller or not
            options["dependencies"] = [*(options.get("dependencies") or ()), Depends(caller_of)]
        super().__init__(path, endpoint, **options)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        access = access_of(self.endpoint)
        assert access is not None
        if access.role is None:
            return handle

        async def guarded(request: Request) -> Response:
            service = service_of(request)
            header = request.headers.get("authorization")
            # It may ask a store, or an identity provider.
            request.state.caller = await run_in_threadpool(service.admit, header, access, request.query_params.get)
            return await handle(request)

        return guarded


def guarded_router() -> APIRouter:
    """A router whose routes have to declare who may call them."""
    return APIRouter(route_class=GuardedRoute)


@contextmanager
def one_call() -> Iterator[None]:
    """Within it whatever is asked for counts as one call."""
    token = _CALL.set(secrets.token_hex(8))
    try:
        yield
    finally:
        _CALL.reset(token)


def service_of(request: Request) -> Service:
    """What the API process keeps."""
    api: FastAPI = request.app
    service: Service = api.state.service
    return service


def app_of(request: Request) -> App:
    """The application."""
    return service_of(request).app


def caller_of(request: Request, authorization: Authorization = None) -> Caller:
    """The verdict that `GuardedRoute` has found; the header stands here for OpenAPI alone."""
    del authorization
    caller: Caller = request.state.caller
    return caller


AppDep = Annotated[App, Depends(app_of)]
CallerDep = Annotated[Caller, Depends(caller_of)]
ServiceDep = Annotated[Service, Depends(service_of)]
