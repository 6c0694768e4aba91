"""API keys: made once, shown once, stored as hashes.

A key reads `hyb_<id>_<secret>`; the secret has 256 random bits, so a plain SHA-256 of it tells nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path

import filelock

from app.core.errors import ForbiddenError, InvalidInputError, NotFoundError, UnauthorizedError
from app.core.manifest import read_json, write_json


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
    """A stored key. `collections` empty means all of them."""

    id: str
    sha256: str
    role: Role
    created: str
    collections: tuple[str, ...] = ()
    revoked: bool = False
    note: str = field(default="")

    def allows(self, role: Role, collection: str | None) -> bool:
        """Whether the key may act in this role on this collection."""
        return role in _IMPLIED[self.role] and (
            collection is None or not self.collections or collection in self.collections
        )


class KeyStore:
    """Keys in one JSON file, read anew for every check so that a revoked key stops working at once."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def all(self) -> list[ApiKey]:
        """Every key, oldest first."""
        if not self._path.exists():
            return []
        rows = read_json(self._path)["keys"]
        return [ApiKey(**{**row, "role": Role(row["role"]), "collections": tuple(row["collections"])}) for row in rows]

    def _save(self, keys: Sequence[ApiKey]) -> None:
        write_json(self._path, {"format": 1, "keys": [asdict(key) for key in keys]})
        self._path.chmod(0o600)

    def _lock(self) -> filelock.BaseFileLock:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        return filelock.FileLock(self._path.with_suffix(".lock"))

    def create(self, role: str, created: str, collections: Sequence[str] = (), note: str = "") -> str:
        """Make a key; the returned text is the only copy of its secret."""
        if role not in set(Role):
            raise InvalidInputError("unknown role", received=role, expected=f"one of {', '.join(Role)}")
        key_id, secret = secrets.token_hex(4), secrets.token_urlsafe(32)
        digest = hashlib.sha256(secret.encode()).hexdigest()
        with self._lock():
            self._save([*self.all(), ApiKey(key_id, digest, Role(role), created, tuple(collections), note=note)])
        return f"hyb_{key_id}_{secret}"

    def revoke(self, key_id: str) -> None:
        """Make a key useless from now on."""
        with self._lock():
            keys = self.all()
            if not any(key.id == key_id for key in keys):
                raise NotFoundError("no such key", received=key_id)
            self._save([replace(key, revoked=True) if key.id == key_id else key for key in keys])

    def find(self, presented: str) -> ApiKey:
        """The key that was presented. Raises UnauthorizedError; compares in constant time."""
        prefix, _, rest = presented.partition("_")
        key_id, _, secret = rest.partition("_")
        digest = hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()
        found = None
        for key in self.all():
            if hmac.compare_digest(key.id.encode(), key_id.encode("utf-8", "replace")) & hmac.compare_digest(
                key.sha256, digest
            ):
                found = key
        if prefix != "hyb" or found is None or found.revoked:
            raise UnauthorizedError("the API key is not known", expected="a key made by `hyblink keys create`")
        return found

    def any_active(self) -> bool:
        """Whether a usable key exists."""
        return any(not key.revoked for key in self.all())


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is reachable from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def authorize(
    keys: KeyStore, header: str | None, role: Role, collection: str | None, *, open_door: bool
) -> ApiKey | None:
    """Who is asking; None for an anonymous caller at an open door. Raises UnauthorizedError or ForbiddenError."""
    if header is None:
        if open_door:
            return None
        raise UnauthorizedError("an API key is needed", expected="the header `Authorization: Bearer hyb_…`")
    scheme, _, presented = header.partition(" ")
    if scheme.lower() != "bearer":
        raise UnauthorizedError("unknown authorization scheme", expected="Authorization: Bearer hyb_…")
    key = keys.find(presented.strip())
    if not key.allows(role, collection):
        limits = f" on {', '.join(key.collections)}" if key.collections else ""
        raise ForbiddenError(
            "the API key may not do this",
            received=f"role {key.role}{limits}",
            expected=f"role {role} on {collection}",
        )
    return key
