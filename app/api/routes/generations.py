"""Routes of generations: list, build the next one, publish, roll back."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Path, Response

from hyblink.app.access.keys import Role
from hyblink.app.api import schemas as models
from hyblink.app.api.answers import CONFLICT, NOT_FOUND, Allowed, Authorization, Collection, json_answer
from hyblink.app.api.routes.jobs import shown_job
from hyblink.app.bootstrap import App
from hyblink.app.engines.catalog import check_name

GenerationId = Annotated[str, Path(description="The generation.", pattern=r"^g\d{6}$")]


def generation_routes(app: App, allowed: Allowed) -> APIRouter:
    """The router; `allowed` checks every call."""
    router = APIRouter()

    def listed(collection: str) -> Response:
        current = app.catalog.current(collection)
        return json_answer(
            {"current": current, "generations": [asdict(one) for one in app.catalog.generations(collection)]}
        )

    @router.get(
        "/v1/admin/generations",
        tags=["administration"],
        summary="A collection's generations, and which one answers",
        responses={200: {"model": models.GenerationsAnswer}, **NOT_FOUND},
        response_model=None,
    )
    def generations(collection: Collection = "default", authorization: Authorization = None) -> Response:
        allowed(authorization, Role.ADMIN, collection)
        return listed(collection)

    @router.post(
        "/v1/admin/generations",
        tags=["administration"],
        summary="Build the next generation in the background, verify and publish it",
        description="With the encoders that the workers' settings name. Searches and writes go on meanwhile.",
        status_code=202,
        responses={202: {"model": models.JobAnswer}, **NOT_FOUND, **CONFLICT},
        response_model=None,
    )
    def rebuild(body: models.RebuildBody, authorization: Authorization = None) -> Response:
        key = allowed(authorization, Role.ADMIN, check_name(body.collection))
        return json_answer(shown_job(app.start_rebuild(body.collection, body.note, "" if key is None else key.id)), 202)

    @router.post(
        "/v1/admin/generations/{generation}/publish",
        tags=["administration"],
        summary="Let a generation answer",
        responses={200: {"model": models.GenerationsAnswer}, **NOT_FOUND, **CONFLICT},
        response_model=None,
    )
    def publish(
        generation: GenerationId, collection: Collection = "default", authorization: Authorization = None
    ) -> Response:
        allowed(authorization, Role.ADMIN, collection)
        app.publish(collection, generation)
        return listed(collection)

    @router.post(
        "/v1/admin/rollback",
        tags=["administration"],
        summary="Let the generation before the current one answer again",
        responses={200: {"model": models.GenerationsAnswer}, **NOT_FOUND, **CONFLICT},
        response_model=None,
    )
    def roll_back(collection: Collection = "default", authorization: Authorization = None) -> Response:
        allowed(authorization, Role.ADMIN, collection)
        app.roll_back(collection)
        return listed(collection)

    return router
