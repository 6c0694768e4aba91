"""API keys: made once, shown once, stored as hashes.

A key reads `hyb_<id>_<secret>`; the secret has 256 random bits, so a plain SHA-256 of it tells nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from hyblink.app.core.errors import (
    ConflictError,
    InvalidInputError,
    NotFoundError,
    UnauthorizedError,
)
from hyblink.app.core.ports.work import Record, Records

_ID = re.compile(r"[0-9a-f]{8}")


class Role(StrEnum):
    """What a key may do. `admin` may do everything, `ingest` may also search."""

    SEARCH = "search"
    INGEST = "ingest"
    ADMIN = "admin"


_IMPLIED = {
    Role.SEARCH: {Role.SEARCH},
    Role.INGEST: {Role.SEARCH, Role.INGEST},
    Role.ADMIN: {Role.SEARCH, Role.INGEST, Role.ADMIN},
}


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A stored key. `collections` empty means all of them; `per_minute` and `max_bytes` (of a request's body)
    0 mean the setting's limit.

    After a rotation the `former` secret is good until `former_until` (seconds since 1970).
    """

    id: str
    sha256: str
    role: Role
    created: str
    collections: tuple[str, ...] = ()
    revoked: bool = False
    note: str = ""
    per_minute: int = 0
    former: str = ""
    former_until: float = 0.0
    max_bytes: int = 0

    def shown(self) -> dict[str, Any]:
        """The key as it may be seen: nothing of its secrets."""
        return {name: value for name, value in asdict(self).items() if name not in _SECRET}

    def allows(self, role: Role, collection: str | None) -> bool:
        """Whether the key may act in this role on this collection."""
        return role in _IMPLIED[self.role] and (
            collection is None or not self.collections or collection in self.collections
        )


_KIND = "key"
_SECRET = frozenset({"sha256", "former", "former_until"})

_NOBODY = hashlib.sha256(b"").hexdigest()


class KeyStore:
    """Keys as records, looked up for every check so that a revoked key stops working at once, everywhere."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def all(self) -> list[ApiKey]:
        """Every key, oldest first."""
        found = [_key(one) for one in self._records.list(_KIND, limit=10_000)]
        return sorted(found, key=lambda key: (key.created, key.id))

    def create(
        self,
        role: str,
        created: str,
        collections: Sequence[str] = (),
        note: str = "",
        per_minute: int = 0,
        max_bytes: int = 0,
    ) -> str:
        """Make a key; the returned text is the only copy of its secret."""
        if role not in set(Role):
            raise InvalidInputError("unknown role", received=role, expected=f"one of {', '.join(Role)}")
        if per_minute < 0 or max_bytes < 0:
            raise InvalidInputError(
                "bad limit", received=f"{per_minute}, {max_bytes}", expected="0 or more; 0 for the setting's"
            )
        key_id, secret = secrets.token_hex(4), secrets.token_urlsafe(32)
        key = ApiKey(
            key_id, _digest(secret), Role(role), created, tuple(collections), note=note, per_minute=per_minute,
            max_bytes=max_bytes,
        )  # fmt: skip
        self._put(key, 0)
        return f"hyb_{key_id}_{secret}"

    def rotate(self, key_id: str, *, grace_s: float = 0.0) -> str:
        """Give a key a new secret, the returned text; the former one is good for so long. Raises NotFoundError."""
        found, version = self._get(key_id)
        if found.revoked:
            raise ConflictError("the key is revoked", received=key_id, expected="a usable key")
        secret = secrets.token_urlsafe(32)
        self._put(
            replace(found, sha256=_digest(secret), former=found.sha256, former_until=time.time() + grace_s), version
        )
        return f"hyb_{key_id}_{secret}"

    def revoke(self, key_id: str) -> None:
        """Make a key useless from now on. Raises NotFoundError."""
        found, version = self._get(key_id)
        self._put(replace(found, revoked=True, former=""), version)

    def find(self, presented: str) -> ApiKey:
        """The key that was presented. Raises UnauthorizedError; compares in constant time."""
        prefix, _, rest = presented.partition("_")
        key_id, _, secret = rest.partition("_")
        record = self._records.get(_KIND, key_id) if _ID.fullmatch(key_id) else None
        key = None if record is None else _key(record)
        digest = _digest(secret)
        good = hmac.compare_digest(key.sha256 if key else _NOBODY, digest)
        former = hmac.compare_digest((key.former if key else "") or _NOBODY, digest)
        in_time = key is not None and time.time() < key.former_until
        if prefix != "hyb" or key is None or key.revoked or not (good or (former and in_time)):
            raise UnauthorizedError("the API key is not known", expected="a key made by `hyblink keys create`")
        return key

    def any_active(self) -> bool:
        """Whether a usable key exists."""
        return any(not key.revoked for key in self.all())

    def _get(self, key_id: str) -> tuple[ApiKey, int]:
        record = self._records.get(_KIND, key_id)
        if record is None:
            raise NotFoundError("no such key", received=key_id)
        return _key(record), record.version

    def _put(self, key: ApiKey, version: int) -> None:
        self._records.put(Record(_KIND, key.id, asdict(key), version=version))


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def _key(record: Record) -> ApiKey:
    body = dict(record.body)
    return ApiKey(**{**body, "role": Role(body["role"]), "collections": tuple(body["collections"])})
