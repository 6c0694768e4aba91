"""Names the sources of a collection, so that equal file names of two folders do not become one document."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hyblink.app.application import App
from hyblink.app.core.errors import InvalidInputError
from hyblink.app.core.ports.jobs import Record
from hyblink.app.core.settings import Settings, SourceSettings
from hyblink.indexer.ingest.ingest_job import reading_limits
from hyblink.indexer.readers.files import FileSource

_KIND = "source"
_FILES, _REMOTE = "files:", "remote:"
"""The beginnings of the ids of sources that are files or folders, and of others."""


@dataclass(frozen=True, slots=True)
class SourceName:
    """The name of a source in a collection, and what stands before the ids of its files: "" for the first source."""

    name: str
    prefix: str


def named(app: App, collection: str, address: Path | str, base: str = "", *, remember: bool = True) -> SourceName:
    """The name of a source in a collection: a folder's own name, or `base` for an `address` that is no folder.

    A file belongs to the folder that it is in. Another source of the same name gets a number. The name is remembered
    for the address, unless `remember` is False. Raises UserError if the collection cannot be opened.
    """
    if isinstance(address, Path):
        root = _root(address)
        base, mine, address = base or root.name.replace("/", "") or "root", f"{_FILES}{root}", str(root)
    else:
        mine = f"{_REMOTE}{address}"
    if not app.catalog.has(collection):
        return SourceName(base, "")
    records = app.catalog.records()
    ident = _ident(collection, address)
    found = records.get(_KIND, ident)
    if found is not None:
        return _name_of(found.body)
    others = _known(app, collection)
    read = [one for one in app.catalog.engine(collection).store.sources() if one.startswith((_FILES, _REMOTE))]
    is_first = not others or any(one == mine or one.startswith(f"{mine}/") for one in read)
    known = [own for root, own in others.items() if root != address]
    prefix = "" if is_first else _free(base, {own.prefix for own in known})
    made = SourceName(_free(base, {own.name for own in known}), prefix)
    if remember:
        body = {"name": made.prefix, "root": address, "source": made.name}
        records.add([Record(_KIND, ident, body, collection=collection)])
    return made


def copy_sources(app: App, collection: str, target: str) -> None:
    """Let a copy of a collection know the names of its sources."""
    records = app.catalog.records()
    made = []
    for address, own in _known(app, collection).items():
        body = {"name": own.prefix, "root": address, "source": own.name}
        made.append(Record(_KIND, _ident(target, address), body, collection=target))
    records.add(made)


def _ident(collection: str, address: str) -> str:
    return hashlib.sha256(f"{collection}\n{address}".encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _free(base: str, taken: set[str]) -> str:
    free, number = base, 2
    while free in taken:
        free, number = f"{base}-{number}", number + 1
    return free


def roots_of(app: App, collection: str, name: str) -> list[Path]:
    """The folders that a source of a collection was read from, by the name that its documents say."""
    return [Path(root) for root, own in _known(app, collection).items() if own.name == name]


def _known(app: App, collection: str) -> dict[str, SourceName]:
    """Address → name of the sources that a collection has had."""
    kept = app.catalog.records().list(_KIND, collection=collection, limit=100_000)
    found = {str(one.body["root"]): _name_of(one.body) for one in kept}
    for read in app.catalog.engine(collection).store.sources():
        if read.startswith(_FILES):
            root = _root(Path(read.removeprefix(_FILES)))
            if not any(str(root) == other or str(root).startswith(f"{other}/") for other in found):
                found[str(root)] = SourceName(root.name or "root", "")
        elif read.startswith(_REMOTE):
            address = read.removeprefix(_REMOTE)
            found.setdefault(address, SourceName(base_of(address), ""))
    return found


def _name_of(body: Any) -> SourceName:
    prefix = str(body["name"])
    return SourceName(str(body.get("source") or prefix or Path(str(body["root"])).name or "root"), prefix)


def _root(path: Path) -> Path:
    """The folder that a path is, or is in."""
    return path.resolve() if path.is_dir() else path.resolve().parent


def base_of(address: str) -> str:
    """The name of a source that is no folder: a web page's host, the last part of a bucket's address.

    >>> base_of("https://docs.example.org/sitemap.xml"), base_of("s3://papers/2024/")
    ('docs.example.org', '2024')
    """
    parts = urlsplit(address)
    if parts.scheme in ("http", "https"):
        return parts.hostname or "web"
    return address.partition("\n")[0].rstrip("/").rpartition("/")[2].partition("?")[0] or parts.scheme


def described(wanted: str, settings: Settings, query: str = "") -> tuple[str, SourceSettings]:
    """(name or "", description) of the source that a command names: one of the settings, an address or a folder."""
    known = settings.sources.get(wanted)
    if known is not None:
        return wanted, known
    scheme, separator, _ = wanted.partition("://")
    if query:
        return "", SourceSettings(database=wanted, query=query)
    if separator and scheme in ("http", "https"):
        return "", SourceSettings(url=wanted)
    if separator and "/" not in scheme:
        return "", SourceSettings(bucket=wanted)
    return "", SourceSettings(folder=Path(wanted))


def opened_source(
    app: App, collection: str, name: str, told: SourceSettings, *, remember: bool = True, **reading: Any
) -> FileSource:
    """The source with this description, as it is in a collection. `reading` are arguments of `FileSource`.

    Raises UserError if there is no such thing, or it cannot be reached.
    """
    from hyblink.indexer.sources.remote import RemoteSource

    how = {option: getattr(told, option) for option in ("ocr", "keep_boilerplate", "rows", "prefix_ids")}
    limits: dict[str, Any] = {**reading_limits(app.settings.ingest), **how, **reading}
    columns = {"id": told.id_column, "title": told.title_column, "text": told.text_column}
    limits["columns"] = {target: column for target, column in columns.items() if column} | dict(
        reading.get("columns") or {}
    )
    if told.folder is not None:
        own = named(app, collection, told.folder.expanduser(), name, remember=remember)
        return FileSource(told.folder.expanduser(), prefix=own.prefix, name=own.name, **limits)
    if told.database:
        from hyblink.indexer.sources.database import DatabaseSource

        address = DatabaseSource.address_of(told.database, told.query)
        own = named(app, collection, address, name or base_of(address), remember=remember)
        return DatabaseSource(told.database, told.query, name=own.name, **limits)
    if told.url:
        from hyblink.indexer.sources.web import WebPages, allowed_at

        pages = WebPages(told.url, allowed_at(told.url, told.hosts), limits["max_file_bytes"])
        own = named(app, collection, pages.address, name or base_of(told.url), remember=remember)
        return RemoteSource(pages, name=own.name, **limits)  # addresses are ids of their own
    if told.bucket:
        from hyblink.indexer.sources.bucket import Bucket

        bucket = Bucket(told.bucket)
        own = named(app, collection, bucket.address, name or base_of(bucket.address), remember=remember)
        return RemoteSource(bucket, prefix=own.prefix, name=own.name, **limits)
    raise InvalidInputError("a source without an address", received=name, expected="folder, url, bucket or database")
