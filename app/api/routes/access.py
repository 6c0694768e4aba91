"""Routes for API keys and the audit log."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from fastapi import Path, Query, Response

from hyblink.app.access.keys import Role
from hyblink.app.api.answers import CONFLICT, NOT_FOUND, Before, Limit, json_answer
from hyblink.app.api.dependencies import CallerDep, ServiceDep, guarded_router, requires
from hyblink.app.api.schemas.access import AuditAnswer, KeyBody, KeysAnswer, NewKeyAnswer, WhoAnswer
from hyblink.app.core.clock import now
from hyblink.app.core.names import check_name

KeyId = Annotated[str, Path(description="The key's id.", pattern=r"^[0-9a-f]{8}$")]


router = guarded_router()


@router.get(
    "/v1/whoami",
    tags=["operation"],
    summary="What the caller may do",
    responses={200: {"model": WhoAnswer}},
    response_model=None,
)
@requires(Role.SEARCH)
def whoami(caller: CallerDep) -> Response:
    key = caller.key
    if key is None:
        return json_answer({"key": "", "role": Role.ADMIN, "collections": [], "note": "open door"})
    return json_answer({"key": key.id, "role": key.role, "collections": key.collections, "note": key.note})


@router.get(
    "/v1/admin/keys",
    tags=["administration"],
    summary="API keys, without their secrets",
    responses={200: {"model": KeysAnswer}},
    response_model=None,
)
@requires(Role.ADMIN, everywhere=True)
def listed(service: ServiceDep) -> Response:
    return json_answer({"keys": [key.shown() for key in service.keys.all()]})


@router.post(
    "/v1/admin/keys",
    tags=["administration"],
    summary="Make an API key; the answer is the only copy of its secret",
    status_code=201,
    responses={201: {"model": NewKeyAnswer}},
    response_model=None,
)
@requires(Role.ADMIN, everywhere=True, audited=True)
def create(body: KeyBody, service: ServiceDep) -> Response:
    for name in body.collections:
        check_name(name)
    made = service.keys.create(body.role, now(), body.collections, body.note, body.per_minute, body.max_bytes)
    return json_answer({"key": made}, 201)


@router.post(
    "/v1/admin/keys/{key_id}/rotate",
    tags=["administration"],
    summary="Give a key a new secret; the answer is its only copy",
    responses={200: {"model": NewKeyAnswer}, **NOT_FOUND, **CONFLICT},
    response_model=None,
)
@requires(Role.ADMIN, everywhere=True, audited=True)
def rotate(
    service: ServiceDep,
    key_id: KeyId,
    grace_s: Annotated[float, Query(ge=0, le=30 * 86_400, description="How long the former one is good.")] = 0.0,
) -> Response:

    return json_answer({"key": service.keys.rotate(key_id, grace_s=grace_s)})


@router.delete(
    "/v1/admin/keys/{key_id}",
    tags=["administration"],
    summary="Revoke a key: it is useless at once",
    responses={200: {"model": KeysAnswer}, **NOT_FOUND, **CONFLICT},
    response_model=None,
)
@requires(Role.ADMIN, everywhere=True, audited=True)
def revoke(key_id: KeyId, service: ServiceDep) -> Response:
    service.keys.revoke(key_id)
    return json_answer({"keys": [key.shown() for key in service.keys.all() if key.id == key_id]})


@router.get(
    "/v1/admin/audit",
    tags=["administration"],
    summary="What administrators did, and who tried to, the newest first",
    responses={200: {"model": AuditAnswer}},
    response_model=None,
)
@requires(Role.ADMIN, everywhere=True)
def acts(
    service: ServiceDep,
    before: Before = None,
    limit: Limit = 100,
) -> Response:

    return json_answer({"acts": [{"id": at, **asdict(act)} for at, act in service.audit.list(before, limit)]})
