"""API keys, of which only hashes are stored.

A key has the form `hyb_<id>_<secret>`. The secret has 256 random bits, so a plain SHA-256 hash is safe to store.
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
from hyblink.app.core.ports.jobs import Record, Records

_ID = re.compile(r"[0-9a-f]{8}")


class Role(StrEnum):
    """The role of a key. `admin` may do everything; `ingest` may write and search."""

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
    """A stored key. Empty `collections` means all collections.

    `per_minute` limits the requests, `max_bytes` the size of a request's body; 0 means the limit of the settings.
    After a rotation the `former` secret (a hash) stays valid until `former_until`, in seconds since 1970.
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
        """Return the key's fields without its hashes."""
        return {name: value for name, value in asdict(self).items() if name not in _SECRET}

    def allows(self, role: Role, collection: str | None) -> bool:
        """Return whether the key has this role on the collection (None: on any collection)."""
        return role in _IMPLIED[self.role] and (
            collection is None or not self.collections or collection in self.collections
        )


_KIND = "key"
_SECRET = frozenset({"sha256", "former", "former_until"})

_NOBODY = hashlib.sha256(b"").hexdigest()


class KeyStore:
    """API keys, stored as records. Each check reads the record, so that revoking a key takes effect at once."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def all(self) -> list[ApiKey]:
        """Return all keys, oldest first, revoked ones included."""
        found = [_key(item) for item in self._records.list(_KIND, limit=10_000)]
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
        """Create a key and return its text, the only copy of its secret. Raises InvalidInputError."""
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
        """Replace a key's secret and return the new text. The old secret stays valid for `grace_s` seconds.

        Raises NotFoundError, and ConflictError if the key is revoked.
        """
        found, version = self._get(key_id)
        if found.revoked:
            raise ConflictError("the key is revoked", received=key_id, expected="a usable key")
        secret = secrets.token_urlsafe(32)
        self._put(
            replace(found, sha256=_digest(secret), former=found.sha256, former_until=time.time() + grace_s), version
        )
        return f"hyb_{key_id}_{secret}"

    def revoke(self, key_id: str) -> None:
        """Revoke a key: it is refused from now on. Raises NotFoundError."""
        found, version = self._get(key_id)
        self._put(replace(found, revoked=True, former=""), version)

    def find(self, presented: str) -> ApiKey:
        """Return the key with the presented text. Compares hashes in constant time. Raises UnauthorizedError."""
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
        """Return whether a key exists that is not revoked."""
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
