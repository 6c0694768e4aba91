"""Verification of bearer tokens of an identity provider (OpenID Connect): JWTs signed with the provider's keys.

Following RFC 7519 and RFC 8725, only asymmetric algorithms are accepted, and the configured issuer and audience and an
expiry are required. Claims in the token give the caller's role and collections.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx
import jwt

from hyblink.app.access.authorize import is_loopback
from hyblink.app.access.keys import ApiKey, Role
from hyblink.app.core.errors import ForbiddenError, InvalidInputError, UnauthorizedError, UnavailableError
from hyblink.app.core.settings import OidcSettings

log = logging.getLogger(__name__)
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
_LEEWAY_S = 30
_KEYS_S = 3600.0
"""The age at which the provider's keys are fetched again."""
_STALE_S = 24 * 3600.0
"""The age up to which keys are still used if fetching them fails."""
_AGAIN_S = 30.0
_MAX_BYTES = 512 * 1024
_MAX_TOKEN = 16_384


class TokenVerifier:
    """Verifies tokens of one issuer. Its keys are fetched on first use, and again when a token uses an unknown key."""

    def __init__(self, settings: OidcSettings) -> None:
        """Raise InvalidInputError for unsafe settings: a URL without TLS, no audience, unknown roles."""
        for name in ("issuer", "jwks_url"):
            _check_url(f"oidc.{name}", getattr(settings, name))
        if not settings.audience:
            raise InvalidInputError("oidc.audience is missing", received="nothing", expected="who tokens are for")
        unknown = sorted(set(settings.roles.values()) - set(Role))
        if unknown:
            raise InvalidInputError("bad oidc.roles", received=unknown, expected=f"values of {', '.join(Role)}")
        self._settings = settings
        self._lock = threading.Lock()
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched = self._tried = float("-inf")
        self._fetching = threading.Lock()

    def identity(self, token: str) -> ApiKey:
        """Verify a token and return the identity and rights that it gives, as an `ApiKey`.

        Raises UnauthorizedError for a bad token, ForbiddenError for a token without a role or collection, and
        UnavailableError if the provider's keys cannot be fetched.
        """
        if len(token) > _MAX_TOKEN:
            raise UnauthorizedError("the token is too long", received=f"{len(token)} characters", expected="16384")
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                self._key_of(token),
                algorithms=list(ALGORITHMS),
                audience=self._settings.audience,
                issuer=self._settings.issuer,
                leeway=_LEEWAY_S,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except (jwt.PyJWTError, ValueError) as error:
            # The message names only the type of error: the token must not appear in a response or a log.
            raise UnauthorizedError(
                f"the token is not good: {type(error).__name__}", expected="a token of the issuer, in time"
            ) from None
        subject = str(claims["sub"])
        role = self._role(claims)
        if role is None:
            raise ForbiddenError("the token gives no role", expected=f"the claim {self._settings.role_claim}")
        short = hashlib.sha256(f"{self._settings.issuer} {subject}".encode()).hexdigest()[:16]
        return ApiKey(
            id=f"oidc-{short}",
            sha256="",
            role=role,
            created="",
            collections=self._collections(claims),
            note=str(claims.get("email") or claims.get("preferred_username") or subject)[:200],
        )

    def _role(self, claims: Mapping[str, Any]) -> Role | None:
        """The highest role among the values of the role claim; None if there is none."""
        given = _at(claims, self._settings.role_claim)
        names = given if isinstance(given, list) else [given]
        mapping = self._settings.roles or {role.value: role.value for role in Role}
        found = {mapping[name] for name in names if isinstance(name, str) and name in mapping}
        return next((role for role in (Role.ADMIN, Role.INGEST, Role.SEARCH) if role.value in found), None)

    def _collections(self, claims: Mapping[str, Any]) -> tuple[str, ...]:
        """The collections of the token's claim; empty means all (claim `*`, or no claim configured)."""
        name = self._settings.collections_claim
        if not name:
            return ()
        given = _at(claims, name)
        found = tuple(
            value for value in (given if isinstance(given, list) else [given]) if isinstance(value, str) and value
        )
        if not found:
            raise ForbiddenError("the token names no collection", expected=f"the claim {name}, or `*`")
        return () if "*" in found else found

    def _key_of(self, token: str) -> jwt.PyJWK:
        header = jwt.get_unverified_header(token)
        if header.get("alg") not in ALGORITHMS:
            raise jwt.InvalidAlgorithmError("not an asymmetric algorithm")
        kid = str(header.get("kid", ""))
        with self._lock:
            known, fetched, tried = kid in self._keys, self._fetched, self._tried
        now = time.monotonic()
        if (not known or now - fetched > _KEYS_S) and now - tried > _AGAIN_S:
            self._refresh(wait=not known)
        with self._lock:
            if not self._keys or time.monotonic() - self._fetched > _STALE_S:
                raise UnavailableError("the identity provider does not answer", received=self._settings.issuer)
            if kid not in self._keys:
                raise jwt.InvalidKeyError("no such key")
            return self._keys[kid]

    def _refresh(self, *, wait: bool) -> None:
        """Fetch the provider's keys, one caller at a time. If this fails, the known keys are kept."""
        if not self._fetching.acquire(blocking=wait):
            return
        try:
            if time.monotonic() - self._tried <= _AGAIN_S:
                return  # another caller has just fetched them
            found = self._published()
            with self._lock:
                self._tried = time.monotonic()
                if found:
                    self._keys, self._fetched = found, self._tried
        finally:
            self._fetching.release()

    def _published(self) -> dict[str, jwt.PyJWK]:
        try:
            url = self._settings.jwks_url or str(_get(_discovery(self._settings.issuer)).get("jwks_uri", ""))
            _check_url("jwks_uri", url, needed=True)
            keys = jwt.PyJWKSet.from_dict(_get(url)).keys
        except (httpx.HTTPError, jwt.PyJWTError, ValueError, InvalidInputError) as error:
            log.warning("the identity provider's keys could not be fetched: %s", error)
            return {}
        return {str(key.key_id or ""): key for key in keys if key.public_key_use in {None, "sig"}}


def _discovery(issuer: str) -> str:
    return f"{issuer.rstrip('/')}/.well-known/openid-configuration"


def _check_url(name: str, url: str, *, needed: bool = False) -> None:
    parts = urlsplit(url)
    safe = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))
    if (url or needed) and not (safe and parts.hostname):
        raise InvalidInputError(f"bad {name}", received=url, expected="an https address")


def _get(url: str) -> dict[str, Any]:
    """Fetch a JSON object from a URL; redirects are not followed."""
    with httpx.stream("GET", url, timeout=5.0, follow_redirects=False) as answer:
        answer.raise_for_status()
        body = b""
        for part in answer.iter_bytes():
            body += part
            if len(body) > _MAX_BYTES:
                raise ValueError("the answer is too long")
    found = httpx.Response(200, content=body).json()
    if not isinstance(found, dict):
        raise ValueError("the answer is no JSON object")
    return found


def _at(claims: Mapping[str, Any], path: str) -> Any:
    """A claim by its name or by a dotted path, such as `resource_access.hyblink.roles`; None if missing."""
    if path in claims:
        return claims[path]
    found: Any = claims
    for part in path.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found
