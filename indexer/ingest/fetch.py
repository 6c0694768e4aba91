"""Downloads files by URL for ingestion jobs, only from hosts that the settings allow.

This prevents server-side request forgery, where a user's URL reaches services that only this machine can reach. The
host must be in the settings. Its IP address is checked at connection time, so a later DNS answer cannot replace it.
Every redirect is checked again. The request is a plain GET without cookies or headers of the caller.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

import httpcore

from hyblink.app.core.errors import ForbiddenError, InvalidInputError, NotFoundError, UnavailableError

_REDIRECTS = 5
_TIMEOUTS = {"connect": 10.0, "read": 30.0, "write": 10.0, "pool": 10.0}
_PORTS = {"http": 80, "https": 443}
_MAX_URL = 2000
_OK, _GONE, _BUSY = 200, {404, 410}, {408, 425, 429, 500, 502, 503, 504}
_MOVED = {301, 302, 303, 307, 308}
_NAME = re.compile(r"[A-Za-z0-9.-]{1,253}")
_TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052
_UNICAST = ipaddress.IPv6Network("2000::/3")  # the only range of public IPv6 addresses assigned so far
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Allowed:
    """The servers that ingestion jobs may download from.

    `hosts` are host names or IP addresses. A port is written only if it is not the scheme's default. `*.example.org`
    means all subdomains. Every IP address of a host must be public or lie in one of `networks`.
    """

    hosts: tuple[str, ...]
    networks: tuple[Network, ...]

    @classmethod
    def of(cls, hosts: Sequence[str], networks: Sequence[str]) -> Allowed:
        """Build from the strings in the settings. Raises InvalidInputError for a bad network."""
        try:
            return cls(
                tuple(host.lower() for host in hosts), tuple(ipaddress.ip_network(network) for network in networks)
            )
        except ValueError as error:
            raise InvalidInputError(f"bad jobs.url_networks: {error}", expected="such as 10.0.0.0/8") from None

    def check(self, url: str) -> tuple[str, str, int, str]:
        """Scheme, host, port and path with query of a URL.

        Raises InvalidInputError for a malformed URL, ForbiddenError for a host that is not allowed.
        """
        if len(url) > _MAX_URL or any(not "!" <= char <= "~" for char in url):
            raise InvalidInputError("bad url", received=url[:_MAX_URL], expected="an http or https address in ASCII")
        try:
            parts = urlsplit(url)
            port = parts.port or _PORTS.get(parts.scheme, 0)
        except ValueError as error:
            raise InvalidInputError(f"bad url: {error}", received=url, expected="an http or https address") from None
        host = (parts.hostname or "").lower()
        if parts.scheme not in _PORTS or not host or parts.username is not None or parts.password is not None:
            raise InvalidInputError("bad url", received=url, expected="http://host/… or https://host/…, no user name")
        if not _NAME.fullmatch(host) and not _is_address(host):
            raise InvalidInputError("bad url", received=url, expected="a host name or address")
        if not any(self._matches(item, host, port, parts.scheme) for item in self.hosts):
            raise ForbiddenError(
                "the host is not among those that jobs may read",
                received=f"{host}:{port}",
                expected="one of jobs.url_hosts",
            )
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return parts.scheme, host, port, path

    @staticmethod
    def _matches(entry: str, host: str, port: int, scheme: str) -> bool:
        if _is_address(entry.strip("[]")):
            name, wanted = entry.strip("[]"), ""
        else:
            name, colon, wanted = entry.rpartition(":")
            name, wanted = (name.strip("[]"), wanted) if colon else (entry, "")
        if wanted and str(port) != wanted:
            return False
        if not wanted and port != _PORTS[scheme]:
            return False
        return host.endswith(name[1:]) if name.startswith("*.") else host == name

    def address(self, host: str, port: int) -> str:
        """Resolve a host to an allowed IP address.

        Raises ForbiddenError if any of its addresses is not allowed, UnavailableError if the name does not resolve.
        """
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise UnavailableError(f"the host is not known: {error}", received=host) from None
        addresses = [str(result[4][0]) for result in found]
        good = [address for address in addresses if self._good(ipaddress.ip_address(address.partition("%")[0]))]
        # One forbidden address makes the whole name suspicious.
        if not good or len(good) != len(addresses):
            raise ForbiddenError(
                "the host stands for an address that jobs may not read", received=f"{host}: {', '.join(addresses)}",
                expected="public addresses, or such in jobs.url_networks",
            )  # fmt: skip
        return good[0]

    def _good(self, address: Address) -> bool:
        if isinstance(address, ipaddress.IPv6Address):
            mapped = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
            if address in _TRANSLATED:
                mapped = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
            if mapped is not None:
                return self._good(mapped)
        public = address.is_global and not address.is_multicast
        if isinstance(address, ipaddress.IPv6Address):
            public = public and address in _UNICAST
        return public or any(address in network for network in self.networks if network.version == address.version)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


class _Guarded(httpcore.NetworkBackend):
    """Network backend that resolves and checks the host itself and connects only to the checked IP address."""

    def __init__(self, allowed: Allowed) -> None:
        self._allowed = allowed
        self._plain = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Any = None,
    ) -> httpcore.NetworkStream:
        address = self._allowed.address(host, port)
        return self._plain.connect_tcp(address, port, timeout, local_address, socket_options)

    def connect_unix_socket(self, path: str, *_: Any, **__: Any) -> httpcore.NetworkStream:
        raise ForbiddenError("no sockets of this machine", received=path)


def file_name(url: str) -> str:
    """The file name of a URL: the last part of its path, percent-decoded."""
    return unquote(urlsplit(url).path.rpartition("/")[2])


@contextmanager
def fetched(url: str, allowed: Allowed) -> Iterator[Iterator[bytes]]:
    """Download a URL; the context value yields the content in chunks of bytes.

    Follows at most 5 redirects and checks each like the first URL. Raises InvalidInputError for a bad URL or response,
    ForbiddenError for a host that is not allowed, NotFoundError for status 404 and 410, UnavailableError for errors
    that may be temporary.
    """
    with httpcore.ConnectionPool(
        ssl_context=ssl.create_default_context(), network_backend=_Guarded(allowed), max_connections=1
    ) as pool:
        asked = url
        for _ in range(_REDIRECTS + 1):
            scheme, host, port, path = allowed.check(asked)
            default = port == _PORTS[scheme]
            name = f"[{host}]" if ":" in host else host
            headers = [
                ("Host", name if default else f"{name}:{port}"),
                ("Accept-Encoding", "identity"),
                ("User-Agent", "hyblink"),
            ]
            target = httpcore.URL(scheme=scheme, host=host, port=port, target=path)
            with (
                _translated(asked),
                pool.stream("GET", target, headers=headers, extensions={"timeout": _TIMEOUTS}) as answer,
            ):
                if answer.status in _MOVED:
                    asked = urljoin(asked, _header(answer, b"location"))
                    continue
                _check_answer(answer, asked)
                yield _guarded(answer, asked)
                return
        raise UnavailableError("too many redirects", received=url, expected=f"at most {_REDIRECTS}")


def _guarded(answer: httpcore.Response, url: str) -> Iterator[bytes]:
    with _translated(url):
        yield from answer.iter_stream()


def _header(answer: httpcore.Response, name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in answer.headers if key.lower() == name), "")


def _check_answer(answer: httpcore.Response, url: str) -> None:
    if answer.status in _GONE:
        raise NotFoundError("the server has nothing there", received=f"{url}: {answer.status}")
    if answer.status in _BUSY:
        raise UnavailableError("the server does not answer", received=f"{url}: {answer.status}")
    if answer.status != _OK:
        raise InvalidInputError("the server refuses", received=f"{url}: {answer.status}", expected="200")
    if _header(answer, b"content-encoding") not in {"", "identity"}:
        raise InvalidInputError(
            "the answer is compressed in transit", received=_header(answer, b"content-encoding"), expected="identity"
        )


@contextmanager
def _translated(url: str) -> Iterator[None]:
    try:
        yield
    except (
        httpcore.NetworkError,
        httpcore.TimeoutException,
        httpcore.ProtocolError,
        ssl.SSLError,
        OSError,
    ) as error:
        raise UnavailableError(f"the server does not answer: {type(error).__name__} {error}", received=url) from error
