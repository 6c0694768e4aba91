"""Routes for health, readiness and metrics."""

from __future__ import annotations

from fastapi import Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from hyblink.app.access.keys import Role
from hyblink.app.api.answers import json_answer
from hyblink.app.api.dependencies import CallerDep, ServiceDep, guarded_router, requires
from hyblink.app.api.schemas.operation import HealthAnswer, ReadyAnswer
from hyblink.app.core.errors import HyblinkError

router = guarded_router()


@router.get("/healthz", tags=["operation"], summary="Is the process alive?")
@requires(None)
async def healthz() -> HealthAnswer:
    return HealthAnswer(status="ok")


@router.get(
    "/readyz",
    tags=["operation"],
    summary="Can requests be answered?",
    responses={200: {"model": ReadyAnswer}, 503: {"model": ReadyAnswer}},
    response_model=None,
)
@requires(None)
def readyz(service: ServiceDep, request: Request) -> Response:
    app = service.app
    try:
        named = service.open_to(request.headers)
    except HyblinkError:
        named = False
    problems: list[str] = [] if service.warm.is_set() else ["encoders are being loaded"]
    states: dict[str, str] = {}
    degraded: list[str] = []
    try:
        names = app.catalog.names()
    except HyblinkError as error:
        names = []
        problems.append(f"the store: {error.code}")
    for number, name in enumerate(names, 1):
        shown = name if named else f"collection {number}"  # nobody without a key learns names
        try:
            engine = app.catalog.engine(name)
            engine.snapshot()
            states[name] = app.catalog.current(name)
        except HyblinkError as error:
            problems.append(f"{shown}: {error.code}")
            continue
        try:
            if engine.record.dense_dimension:
                app.encoders.hybrid_encoder(engine.record)
        except HyblinkError as error:
            degraded.append(f"{shown}: {error.code}")  # still ready: BM25 works without the encoder
    ready = not problems
    answer = {
        "ready": ready,
        "problems": problems,
        "degraded": degraded,
        "collections": states if named else {},
    }
    return json_answer(answer, 200 if ready else 503)


@router.get(
    "/metrics",
    tags=["operation"],
    summary="Prometheus metrics",
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    response_class=Response,
)
@requires(Role.SEARCH)
def metrics(service: ServiceDep, caller: CallerDep) -> Response:
    return Response(service.metrics.text(caller.sees), media_type=CONTENT_TYPE_LATEST)
