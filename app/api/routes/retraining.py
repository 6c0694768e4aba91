"""Routes of retraining: begin, approve, schedule; and of the models that it makes."""

from __future__ import annotations

import datetime as dt
from typing import Any

from fastapi import APIRouter, Response

from hyblink.app.access.keys import Role, check_everywhere
from hyblink.app.api import schemas as models
from hyblink.app.api.answers import CONFLICT, NOT_FOUND, Allowed, Authorization, Collection, json_answer
from hyblink.app.api.routes.jobs import JobId, shown_job
from hyblink.app.bootstrap import App
from hyblink.app.core.errors import NotFoundError
from hyblink.app.engines.catalog import check_name
from hyblink.app.jobs.schedules import Schedule
from hyblink.training.registry import ModelRegistry


def retraining_routes(app: App, allowed: Allowed) -> APIRouter:
    """The router; `allowed` checks every call."""
    router = APIRouter()

    @router.post(
        "/v1/admin/retrain",
        tags=["administration"],
        summary="Train a collection's encoder anew, from its own text and clicks",
        description="A job: data, negatives, train, encode, evaluate, approve, switch. What people have judged is not "
        "learned from; it decides, with questions of held-out documents, whether the outcome may answer.",
        status_code=202,
        responses={202: {"model": models.JobAnswer}, **NOT_FOUND, **CONFLICT},
        response_model=None,
    )
    def retrain(body: models.RetrainBody, authorization: Authorization = None) -> Response:
        key = allowed(authorization, Role.ADMIN, check_name(body.collection))
        job = app.start_retraining(body.collection, body.params(), "" if key is None else key.id)
        return json_answer(shown_job(job), 202)

    @router.post(
        "/v1/admin/retrain/{job_id}/approve",
        tags=["administration"],
        summary="Let the candidate of a retraining answer",
        responses={200: {"model": models.JobAnswer}, **NOT_FOUND, **CONFLICT},
        response_model=None,
    )
    def approve(job_id: JobId, authorization: Authorization = None) -> Response:
        allowed(authorization, Role.ADMIN, None)
        job = app.work.get(job_id)
        key = allowed(authorization, Role.ADMIN, job.collection)
        return json_answer(shown_job(app.approve(job_id, "" if key is None else key.id)))

    @router.get(
        "/v1/admin/retrain/schedule",
        tags=["administration"],
        summary="When a collection's encoder is trained anew",
        responses={200: {"model": models.ScheduleAnswer}, **NOT_FOUND},
        response_model=None,
    )
    def schedule(collection: Collection = "default", authorization: Authorization = None) -> Response:
        allowed(authorization, Role.ADMIN, collection)
        return json_answer(_shown(app.schedules.get(collection)))

    @router.put(
        "/v1/admin/retrain/schedule",
        tags=["administration"],
        summary="Train a collection's encoder anew every so many hours",
        responses={200: {"model": models.ScheduleAnswer}, **NOT_FOUND},
        response_model=None,
    )
    def set_schedule(body: models.ScheduleBody, authorization: Authorization = None) -> Response:
        key = allowed(authorization, Role.ADMIN, check_name(body.collection))
        by = "" if key is None else key.id
        return json_answer(_shown(app.schedule_retraining(body.collection, body.every_hours, body.params(), by)))

    @router.delete(
        "/v1/admin/retrain/schedule",
        tags=["administration"],
        summary="Train no more by the clock",
        status_code=204,
        responses={**NOT_FOUND},
        response_model=None,
    )
    def remove_schedule(collection: Collection = "default", authorization: Authorization = None) -> Response:
        allowed(authorization, Role.ADMIN, collection)
        app.schedules.remove(collection)
        return Response(status_code=204)

    @router.get(
        "/v1/admin/models",
        tags=["administration"],
        summary="Trained models, and which of them are promoted",
        responses={200: {"model": models.ModelsAnswer}},
        response_model=None,
    )
    def trained(authorization: Authorization = None) -> Response:
        check_everywhere(allowed(authorization, Role.ADMIN, None))
        return json_answer({"models": _models(ModelRegistry(app.settings.models_dir))})

    return router


def _shown(one: Schedule) -> dict[str, Any]:
    begins = dt.datetime.fromtimestamp(one.next, dt.UTC).isoformat(timespec="seconds")
    return {
        "collection": one.collection,
        "every_hours": one.every_hours,
        "plan": one.params,
        "by": one.by,
        "next": begins,
    }


def _models(registry: ModelRegistry) -> list[dict[str, Any]]:
    promoted = {names[-1] for names in registry.promoted().values() if names}
    shown = []
    for name in registry.names():
        try:
            manifest = registry.show(name, checksums=False)
        except NotFoundError:
            continue  # deleted meanwhile
        about = {key: manifest.get(key, "") for key in ("kind", "recipe", "parent", "created")}
        shown.append({"name": name, **about, "promoted": name in promoted})
    return shown
