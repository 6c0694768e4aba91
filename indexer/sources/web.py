"""Web pages as a source: those of a sitemap, of a list of addresses, or one page."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urljoin, urlsplit

from hyblink.app.core.errors import (
    ForbiddenError,
    InvalidInputError,
    SourceUnavailableError,
    TooLargeError,
    UnavailableError,
)
from hyblink.indexer.ingest.fetch import Allowed, fetched

_MOST_PAGES = 50_000
_DEEPEST = 3
_MOST_LIST_BYTES = 64 * 2**20
_SITEMAP = ("urlset", "sitemapindex")


class WebPages:
    """A `Remote`: the pages that `url` lists, which is a sitemap (also of sitemaps, also gzipped) or a text with an
    address a line. Any other page is the only one.

    Pages of hosts that are not `allowed` are left out.
    """

    def __init__(self, url: str, allowed: Allowed, max_bytes: int) -> None:
        """`max_bytes` limits one page. Raises InvalidInputError for a malformed address, ForbiddenError."""
        allowed.check(url)
        self._url = url
        self._allowed = allowed
        self._max_bytes = max_bytes

    @property
    def address(self) -> str:
        return self._url

    def files(self) -> Iterator[tuple[str, str]]:
        seen: set[str] = set()
        for url in self._listed(self._url, 0):
            if url in seen:
                continue
            seen.add(url)
            if len(seen) > _MOST_PAGES:
                raise TooLargeError("too many pages", received=self._url, expected=f"at most {_MOST_PAGES}")
            try:
                self._allowed.check(url)
            except InvalidInputError as error:
                yield url, f"no address of a page: {error}"
            except ForbiddenError as error:
                yield url, f"of another host: {error}"
            else:
                yield url, ""

    def fetch(self, name: str, path: Path) -> None:
        with path.open("wb") as file:
            size = 0
            with fetched(name, self._allowed) as chunks:
                for chunk in chunks:
                    size += len(chunk)
                    if size > self._max_bytes:
                        raise TooLargeError("the page is too large", received=name, expected=f"{self._max_bytes} bytes")
                    file.write(chunk)

    def _listed(self, url: str, depth: int) -> Iterator[str]:
        try:
            data = self._read(url)
        except UnavailableError as error:
            raise SourceUnavailableError(error.message, received=error.received) from error
        head = data[:4096].lstrip(b"\xef\xbb\xbf \t\r\n")
        if any(b"<" + name.encode() in head for name in _SITEMAP):
            kind, places = _sitemap(data, url)
            for place in places:
                if kind == "urlset":
                    yield place
                elif depth < _DEEPEST:
                    yield from self._listed(place, depth + 1)
        elif head.startswith((b"http://", b"https://", b"#")):
            lines = data.decode("utf-8-sig", "replace").splitlines()
            yield from (line.strip() for line in lines if line.strip() and not line.startswith("#"))
        else:
            yield url

    def _read(self, url: str) -> bytes:
        with fetched(url, self._allowed) as chunks:
            data = b""
            for chunk in chunks:
                data += chunk
                if len(data) > _MOST_LIST_BYTES:
                    raise TooLargeError("the list is too large", received=url, expected=f"{_MOST_LIST_BYTES} bytes")
        if data.startswith(b"\x1f\x8b"):
            try:
                data = gzip.GzipFile(fileobj=io.BytesIO(data)).read(_MOST_LIST_BYTES)
            except (OSError, EOFError) as error:
                raise InvalidInputError(f"the list cannot be unpacked: {error}", received=url) from error
        return data


def _sitemap(data: bytes, url: str) -> tuple[str, list[str]]:
    """(the kind of a sitemap, the addresses in it)."""
    from defusedxml.common import DefusedXmlException
    from defusedxml.ElementTree import ParseError, fromstring

    try:
        root = fromstring(data)
    except (ParseError, DefusedXmlException, ValueError) as error:
        raise InvalidInputError(f"the sitemap cannot be read: {error}", received=url, expected="a sitemap") from error
    found = (element.text for element in root.iter() if str(element.tag).rpartition("}")[2] == "loc")
    return str(root.tag).rpartition("}")[2], [urljoin(url, text.strip()) for text in found if text and text.strip()]


def allowed_at(url: str, hosts: Sequence[str] = ()) -> Allowed:
    """All pages of the host of `url` and of `hosts`, at any address: for addresses that the operator gave."""
    parts = urlsplit(url)
    name = f"[{parts.hostname}]" if parts.hostname and ":" in parts.hostname else parts.hostname or ""
    host = f"{name}:{parts.port}" if parts.port else name
    return Allowed.of([host, *hosts], ["0.0.0.0/0", "::/0"])
