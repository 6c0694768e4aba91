"""Routes that start, approve and schedule retrainings, and list the trained models."""

from __future__ import annotations

import datetime as dt
from typing import Any

from fastapi import Response

from hyblink.app.access.keys import Role
from hyblink.app.api.answers import CONFLICT, NOT_FOUND, Collection, json_answer
from hyblink.app.api.dependencies import AppDep, CallerDep, guarded_router, requires
from hyblink.app.api.routes.jobs import JobId, shown_job
from hyblink.app.api.schemas.jobs import JobAnswer
from hyblink.app.api.schemas.retraining import ModelsAnswer, RetrainBody, ScheduleAnswer, ScheduleBody
from hyblink.app.core.errors import NotFoundError
from hyblink.app.jobs.schedules import Schedule
from hyblink.app.operations.retraining import schedule_retraining, start_retraining
from hyblink.training.registry import ModelRegistry

router = guarded_router()


@router.post(
    "/v1/admin/retrain",
    tags=["administration"],
    summary="Train a collection's encoder anew, from its own text and clicks",
    description="A job: data, negatives, train, encode, evaluate, approve, switch. What people have judged is not "
    "learned from; it decides, with questions of held-out documents, whether the outcome may answer.",
    status_code=202,
    responses={202: {"model": JobAnswer}, **NOT_FOUND, **CONFLICT},
    response_model=None,
)
@requires(Role.ADMIN, audited=True)
def retrain(body: RetrainBody, app: AppDep, caller: CallerDep) -> Response:
    caller.on(body.collection)
    job = start_retraining(app, body.collection, body.params(), caller.id)
    return json_answer(shown_job(job), 202)


@router.post(
    "/v1/admin/retrain/{job_id}/approve",
    tags=["administration"],
    summary="Let the candidate of a retraining answer",
    responses={200: {"model": JobAnswer}, **NOT_FOUND, **CONFLICT},
    response_model=None,
)
@requires(Role.ADMIN, audited=True)
def approve(job_id: JobId, app: AppDep, caller: CallerDep) -> Response:
    job = app.job_records.get(job_id)
    caller.on(job.collection)
    return json_answer(shown_job(app.job_records.approve(job_id, caller.id)))


@router.get(
    "/v1/admin/retrain/schedule",
    tags=["administration"],
    summary="When a collection's encoder is trained anew",
    responses={200: {"model": ScheduleAnswer}, **NOT_FOUND},
    response_model=None,
)
@requires(Role.ADMIN, collection="default")
def schedule(app: AppDep, caller: CallerDep, collection: Collection = "default") -> Response:
    caller.on(collection)
    return json_answer(_shown(app.schedules.get(collection)))


@router.put(
    "/v1/admin/retrain/schedule",
    tags=["administration"],
    summary="Train a collection's encoder anew every so many hours",
    responses={200: {"model": ScheduleAnswer}, **NOT_FOUND},
    response_model=None,
)
@requires(Role.ADMIN, audited=True)
def set_schedule(body: ScheduleBody, app: AppDep, caller: CallerDep) -> Response:
    caller.on(body.collection)
    return json_answer(_shown(schedule_retraining(app, body.collection, body.every_hours, body.params(), caller.id)))


@router.delete(
    "/v1/admin/retrain/schedule",
    tags=["administration"],
    summary="Train no more by the clock",
    status_code=204,
    responses={**NOT_FOUND},
    response_model=None,
)
@requires(Role.ADMIN, collection="default", audited=True)
def remove_schedule(app: AppDep, caller: CallerDep, collection: Collection = "default") -> Response:
    caller.on(collection)
    app.schedules.remove(collection)
    return Response(status_code=204)


@router.get(
    "/v1/admin/models",
    tags=["administration"],
    summary="Trained models, and which of them are promoted",
    responses={200: {"model": ModelsAnswer}},
    response_model=None,
)
@requires(Role.ADMIN, everywhere=True)
def trained(app: AppDep) -> Response:
    return json_answer({"models": _models(ModelRegistry(app.settings.models_dir))})


def _shown(item: Schedule) -> dict[str, Any]:
    begins = dt.datetime.fromtimestamp(item.next, dt.UTC).isoformat(timespec="seconds")
    return {
        "collection": item.collection,
        "every_hours": item.every_hours,
        "plan": item.params,
        "by": item.by,
        "next": begins,
    }


def _models(registry: ModelRegistry) -> list[dict[str, Any]]:
    promoted = {names[-1] for names in registry.promoted().values() if names}
    shown = []
    for name in registry.names():
        try:
            manifest = registry.show(name, checksums=False)
        except NotFoundError:
            continue  # deleted in the meantime
        about = {key: manifest.get(key, "") for key in ("kind", "recipe", "parent", "created")}
        shown.append({"name": name, **about, "promoted": name in promoted})
    return shown
