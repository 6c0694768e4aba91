"""Create the FastAPI application: routes, body limits, authorization, metrics, audit log."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from starlette.concurrency import run_in_threadpool

from hyblink.app.access.audit import Audit
from hyblink.app.access.authorize import is_loopback
from hyblink.app.access.keys import KeyStore
from hyblink.app.access.oidc import TokenVerifier
from hyblink.app.access.rate_limits import RateLimits
from hyblink.app.api.answers import ERRORS
from hyblink.app.api.dependencies import Grouped, Service, Slots, access_of, one_call
from hyblink.app.api.docs import serve_docs
from hyblink.app.api.errors import answer_errors
from hyblink.app.api.limits import BodyLimit, BodyMemory
from hyblink.app.api.metrics import Metrics, method_label
from hyblink.app.api.routes.registry import ROUTERS
from hyblink.app.api.warm_up import WarmUp
from hyblink.app.application import App
from hyblink.app.core.budget import Costs
from hyblink.app.core.errors import ForbiddenError
from hyblink.app.core.logs import new_request_id, request_id


def create_api(app: App, *, host: str | None = None) -> FastAPI:
    """Return the FastAPI application. `host` is the address that the server will listen on.

    Raises ForbiddenError if other machines can reach this address, and neither an API key nor an identity provider
    exists.
    """
    settings = app.settings
    warm_up = WarmUp(app)
    service = _service(app, host or settings.api.host, warm_up)
    api = FastAPI(
        title="hyblink",
        version="1",
        summary="Hybrid search over your own documents, with the reasons.",
        lifespan=warm_up.lifespan(),
        docs_url=None,
        redoc_url=None,
        responses=ERRORS,
    )
    api.state.service = service
    # Uploads are streamed to disk, so they have a larger limit of their own.
    uploads = {"/v1/uploads": settings.jobs.max_upload_bytes}
    api.add_middleware(
        BodyLimit, limit=settings.api.max_body_bytes, others=uploads, seconds=settings.api.body_timeout_s
    )
    _observe(api, service)
    serve_docs(api)
    answer_errors(api)
    for router in ROUTERS.values():
        api.include_router(router.routes)
    api.openapi = lambda: _openapi(api, app)  # type: ignore[method-assign]
    return api


def _service(app: App, listening: str, warm_up: WarmUp) -> Service:
    settings = app.settings
    keys = KeyStore(app.catalog.records())
    tokens = TokenVerifier(settings.oidc) if settings.oidc.issuer else None
    if not is_loopback(listening) and tokens is None and not keys.any_active():
        raise ForbiddenError(
            "refusing to listen where others can reach it without API keys",
            received=listening,
            expected="a loopback address, a key made by `hyblink keys create --role admin`, or an oidc.issuer",
        )
    metrics = Metrics(app)
    return Service(
        app=app,
        keys=keys,
        rates=RateLimits(settings.api.requests_per_minute),
        audit=Audit(app.catalog.records()),
        tokens=tokens,
        allow_anonymous=is_loopback(listening) and settings.api.open_on_loopback,
        metrics=metrics,
        searches=Slots("searches", settings.api.max_concurrent_searches, metrics.searching),
        links=Slots("linking requests", settings.api.max_concurrent_links, metrics.linking),
        bodies=BodyMemory(settings.api.max_bodies_bytes),
        strangers=Grouped(60.0),
        costs=Costs(settings.api.request_cpu_s, settings.api.request_plain_cpu_s, settings.api.request_memory_bytes),
        warm=warm_up.done,
    )


def _observe(api: FastAPI, service: Service) -> None:
    """Add a middleware that gives each request an id, measures it, and writes audited ones to the audit log."""
    metrics = service.metrics

    @api.middleware("http")
    async def observe(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        started = time.perf_counter()
        mine = new_request_id(request.headers.get("x-request-id", ""))
        token = request_id.set(mine)
        try:
            with one_call():
                response = await call_next(request)
        finally:
            request_id.reset(token)
        response.headers["X-Request-Id"] = mine
        route = request.scope.get("route")
        path = getattr(route, "path", "unmatched")
        access = access_of(getattr(route, "endpoint", observe))
        if access is not None and access.audited:
            await run_in_threadpool(service.note_act, request, response.status_code, mine)
        metrics.requests.labels(path, method_label(request.method), str(response.status_code)).inc()
        metrics.latency.labels(path).observe(time.perf_counter() - started)
        return response


def _openapi(api: FastAPI, app: App) -> dict[str, Any]:
    """The OpenAPI schema, with the limits of the settings filled into the descriptions."""
    if api.openapi_schema is None:
        schema = get_openapi(
            title=api.title, version=api.version, summary=api.summary, routes=api.routes, description=None
        )
        sections = {"api": app.settings.api, "link": app.settings.link, "jobs": app.settings.jobs}
        for path in schema["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)
                if "description" in operation:
                    operation["description"] = operation["description"].format(**sections)
        api.openapi_schema = schema
    return api.openapi_schema
