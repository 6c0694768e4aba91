"""Who presents a header, and whether they may."""

from __future__ import annotations

import ipaddress
from typing import Protocol

from hyblink.app.access.keys import ApiKey, KeyStore, Role
from hyblink.app.core.errors import (
    ForbiddenError,
    UnauthorizedError,
)

_DOTS_OF_A_TOKEN = 2


def check_everywhere(key: ApiKey | None) -> None:
    """What concerns the whole installation is for keys of all collections. Raises ForbiddenError."""
    if key is not None and key.collections:
        raise ForbiddenError("the key is limited to collections", expected="an admin key of all collections")


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is reachable from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Tokens(Protocol):
    """Knows tokens of an identity provider."""

    def identity(self, token: str) -> ApiKey: ...


def identify(keys: KeyStore, tokens: Tokens | None, header: str) -> ApiKey:
    """Who presents an `Authorization` header. Raises UnauthorizedError; ForbiddenError for a token without a role."""
    scheme, _, presented = header.partition(" ")
    if scheme.lower() != "bearer":
        raise UnauthorizedError("unknown authorization scheme", expected="Authorization: Bearer hyb_…")
    presented = presented.strip()
    if tokens is not None and presented.count(".") == _DOTS_OF_A_TOKEN and not presented.startswith("hyb_"):
        return tokens.identity(presented)
    return keys.find(presented)


def authorize(
    keys: KeyStore,
    header: str | None,
    role: Role,
    collection: str | None,
    *,
    open_door: bool,
    tokens: Tokens | None = None,
) -> ApiKey | None:
    """Who is asking; None for an anonymous caller at an open door. Raises UnauthorizedError or ForbiddenError."""
    if header is None:
        if open_door:
            return None
        raise UnauthorizedError("an API key is needed", expected="the header `Authorization: Bearer hyb_…`")
    key = identify(keys, tokens, header)
    permit(key, role, collection)
    return key


def permit(key: ApiKey, role: Role, collection: str | None) -> None:
    """Raises ForbiddenError where a key may not act in this role on this collection (None: on some collection)."""
    if not key.allows(role, collection):
        limits = f" on {', '.join(key.collections)}" if key.collections else ""
        raise ForbiddenError(
            "the API key may not do this",
            received=f"role {key.role}{limits}",
            expected=f"role {role} on {collection}",
        )
