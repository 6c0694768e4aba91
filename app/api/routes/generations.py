"""Routes that list, build, publish and roll back generations."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from fastapi import Path, Response

from hyblink.app.access.keys import Role
from hyblink.app.api.answers import CONFLICT, NOT_FOUND, Collection, json_answer
from hyblink.app.api.dependencies import AppDep, CallerDep, guarded_router, requires
from hyblink.app.api.routes.jobs import shown_job
from hyblink.app.api.schemas.generations import GenerationsAnswer, RebuildBody
from hyblink.app.api.schemas.jobs import JobAnswer
from hyblink.app.application import App
from hyblink.app.operations.generations import publish as publish_generation
from hyblink.app.operations.generations import roll_back as roll_back_generation
from hyblink.app.operations.jobs import start_rebuild

GenerationId = Annotated[str, Path(description="The generation.", pattern=r"^g\d{6}$")]


router = guarded_router()


def _listed(app: App, collection: str) -> Response:
    current = app.catalog.current(collection)
    return json_answer(
        {"current": current, "generations": [asdict(generation) for generation in app.catalog.generations(collection)]}
    )


@router.get(
    "/v1/admin/generations",
    tags=["administration"],
    summary="A collection's generations, and which one answers",
    responses={200: {"model": GenerationsAnswer}, **NOT_FOUND},
    response_model=None,
)
@requires(Role.ADMIN, collection="default")
def generations(app: AppDep, caller: CallerDep, collection: Collection = "default") -> Response:
    caller.on(collection)
    return _listed(app, collection)


@router.post(
    "/v1/admin/generations",
    tags=["administration"],
    summary="Build the next generation in the background, verify and publish it",
    description="With the encoders that the workers' settings name. Searches and writes go on meanwhile.",
    status_code=202,
    responses={202: {"model": JobAnswer}, **NOT_FOUND, **CONFLICT},
    response_model=None,
)
@requires(Role.ADMIN, audited=True)
def rebuild(body: RebuildBody, app: AppDep, caller: CallerDep) -> Response:
    caller.on(body.collection)
    return json_answer(shown_job(start_rebuild(app, body.collection, body.note, caller.id)), 202)


@router.post(
    "/v1/admin/generations/{generation}/publish",
    tags=["administration"],
    summary="Let a generation answer",
    responses={200: {"model": GenerationsAnswer}, **NOT_FOUND, **CONFLICT},
    response_model=None,
)
@requires(Role.ADMIN, collection="default", audited=True)
def publish(
    app: AppDep,
    caller: CallerDep,
    generation: GenerationId,
    collection: Collection = "default",
) -> Response:
    caller.on(collection)
    publish_generation(app, collection, generation)
    return _listed(app, collection)


@router.post(
    "/v1/admin/rollback",
    tags=["administration"],
    summary="Let the generation before the current one answer again",
    responses={200: {"model": GenerationsAnswer}, **NOT_FOUND, **CONFLICT},
    response_model=None,
)
@requires(Role.ADMIN, collection="default", audited=True)
def roll_back(app: AppDep, caller: CallerDep, collection: Collection = "default") -> Response:
    caller.on(collection)
    roll_back_generation(app, collection)
    return _listed(app, collection)
