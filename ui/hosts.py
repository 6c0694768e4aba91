"""Which web pages may use this page's connection: those that the page itself has served, under a name of its own."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit


def refusal(headers: Mapping[str, str], listed: str) -> str:
    """Why a connection with these headers is refused; empty if it is allowed.

    Another site's name can be made to point at this machine (DNS rebinding), so only loopback names, IP addresses and
    the names in `listed`, separated by commas, are this page's own. `headers` is empty outside a server.
    """
    if not headers:
        return ""
    found = {name.lower(): value for name, value in headers.items()}
    own = {name.strip().lower() for name in listed.split(",") if name.strip()}
    host = found.get("host", "")
    name = _name(host)
    if name is None or not (name == "localhost" or _is_address(name) or name in own):
        return f"This page does not answer to the name {host!r}. HYBLINK_UI_HOSTS lists names that it has."
    origin = found.get("origin")
    if origin is not None and origin.partition("://")[2] != host and _name(origin.partition("://")[2]) not in own:
        return f"This page does not answer to a page of {origin!r}. HYBLINK_UI_HOSTS lists names that it has."
    return ""


def _name(host: str) -> str | None:
    """The name in a Host header, without the port; None if it is malformed."""
    try:
        parts = urlsplit(f"//{host}")
        valid = parts.netloc == host and not parts.username and "@" not in host and "," not in host
        parts.port  # noqa: B018  # raises if it is no number
        return parts.hostname if valid else None
    except ValueError:
        return None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
