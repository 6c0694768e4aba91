"""Routes of keys and of the audit log; for administrators."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response

from hyblink.app.access.audit import Audit
from hyblink.app.access.keys import ApiKey, KeyStore, Role, check_everywhere
from hyblink.app.api import schemas as models
from hyblink.app.api.answers import CONFLICT, NOT_FOUND, Allowed, Authorization, Before, Limit, json_answer
from hyblink.app.core.clock import now
from hyblink.app.engines.catalog import check_name

KeyId = Annotated[str, Path(description="The key's id.", pattern=r"^[0-9a-f]{8}$")]


def shown_key(key: ApiKey) -> dict[str, Any]:
    """A key as it may be seen: nothing of its secrets."""
    return {name: value for name, value in asdict(key).items() if name not in {"sha256", "former", "former_until"}}


def access_routes(keys: KeyStore, audit: Audit, allowed: Allowed) -> APIRouter:
    """The router; `allowed` checks every call."""
    router = APIRouter()

    def administrator(authorization: str | None) -> None:
        check_everywhere(allowed(authorization, Role.ADMIN, None))

    @router.get(
        "/v1/whoami",
        tags=["operation"],
        summary="What the caller may do",
        responses={200: {"model": models.WhoAnswer}},
        response_model=None,
    )
    def whoami(authorization: Authorization = None) -> Response:
        key = allowed(authorization, Role.SEARCH, None)
        if key is None:
            return json_answer({"key": "", "role": Role.ADMIN, "collections": [], "note": "open door"})
        return json_answer({"key": key.id, "role": key.role, "collections": key.collections, "note": key.note})

    @router.get(
        "/v1/admin/keys",
        tags=["administration"],
        summary="API keys, without their secrets",
        responses={200: {"model": models.KeysAnswer}},
        response_model=None,
    )
    def listed(authorization: Authorization = None) -> Response:
        administrator(authorization)
        return json_answer({"keys": [shown_key(key) for key in keys.all()]})

    @router.post(
        "/v1/admin/keys",
        tags=["administration"],
        summary="Make an API key; the answer is the only copy of its secret",
        status_code=201,
        responses={201: {"model": models.NewKeyAnswer}},
        response_model=None,
    )
    def create(body: models.KeyBody, authorization: Authorization = None) -> Response:
        administrator(authorization)
        for name in body.collections:
            check_name(name)
        made = keys.create(body.role, now(), body.collections, body.note, body.per_minute, body.max_bytes)
        return json_answer({"key": made}, 201)

    @router.post(
        "/v1/admin/keys/{key_id}/rotate",
        tags=["administration"],
        summary="Give a key a new secret; the answer is its only copy",
        responses={200: {"model": models.NewKeyAnswer}, **NOT_FOUND, **CONFLICT},
        response_model=None,
    )
    def rotate(
        key_id: KeyId,
        grace_s: Annotated[float, Query(ge=0, le=30 * 86_400, description="How long the former one is good.")] = 0.0,
        authorization: Authorization = None,
    ) -> Response:
        administrator(authorization)
        return json_answer({"key": keys.rotate(key_id, grace_s=grace_s)})

    @router.delete(
        "/v1/admin/keys/{key_id}",
        tags=["administration"],
        summary="Revoke a key: it is useless at once",
        responses={200: {"model": models.KeysAnswer}, **NOT_FOUND, **CONFLICT},
        response_model=None,
    )
    def revoke(key_id: KeyId, authorization: Authorization = None) -> Response:
        administrator(authorization)
        keys.revoke(key_id)
        return json_answer({"keys": [shown_key(key) for key in keys.all() if key.id == key_id]})

    @router.get(
        "/v1/admin/audit",
        tags=["administration"],
        summary="What administrators did, and who tried to, the newest first",
        responses={200: {"model": models.AuditAnswer}},
        response_model=None,
    )
    def acts(
        before: Before = None,
        limit: Limit = 100,
        authorization: Authorization = None,
    ) -> Response:
        administrator(authorization)
        return json_answer({"acts": [{"id": one, **asdict(act)} for one, act in audit.list(before, limit)]})

    return router
