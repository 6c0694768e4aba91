"""Identify the caller from the `Authorization` header, and check what the caller may do."""

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
    """Check that a key is not limited to some collections, for actions on the whole installation.

    Raises ForbiddenError. None is an anonymous caller, who is not limited.
    """
    if key is not None and key.collections:
        raise ForbiddenError("the key is limited to collections", expected="an admin key of all collections")


def is_loopback(host: str) -> bool:
    """Return whether a host is a loopback address, which only this machine can reach."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Tokens(Protocol):
    """Verifies bearer tokens of an identity provider."""

    def identity(self, token: str) -> ApiKey: ...


def identify(keys: KeyStore, tokens: Tokens | None, header: str) -> ApiKey:
    """Return the API key or the token's identity from an `Authorization` header.

    Raises UnauthorizedError, and ForbiddenError for a token without a role.
    """
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
    allow_anonymous: bool,
    tokens: Tokens | None = None,
) -> ApiKey | None:
    """Identify the caller and check its role on a collection; return its key.

    `allow_anonymous` allows anonymous callers, for whom None is returned. Raises UnauthorizedError or ForbiddenError.
    """
    if header is None:
        if allow_anonymous:
            return None
        raise UnauthorizedError("an API key is needed", expected="the header `Authorization: Bearer hyb_…`")
    key = identify(keys, tokens, header)
    permit(key, role, collection)
    return key


def permit(key: ApiKey, role: Role, collection: str | None) -> None:
    """Raise ForbiddenError unless a key has this role on the collection (None: on any collection)."""
    if not key.allows(role, collection):
        limits = f" on {', '.join(key.collections)}" if key.collections else ""
        raise ForbiddenError(
            "the API key may not do this",
            received=f"role {key.role}{limits}",
            expected=f"role {role} on {collection}",
        )
