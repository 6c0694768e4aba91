"""Keeps a collection in step with a folder: what is new or changed is ingested, what is gone is removed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from hyblink.app.application import App
from hyblink.app.core.errors import ConflictError, NotFoundError
from hyblink.app.core.filters import And, Exists, Not, Terms
from hyblink.app.core.progress import Progress, silent
from hyblink.app.core.types.documents import Document
from hyblink.app.operations.ingestion import Ingested, NewCollection, ingest_source
from hyblink.app.operations.listing import delete_all, listed, matching_ids
from hyblink.indexer.encode import reuse_vectors
from hyblink.indexer.readers.files import FileSource
from hyblink.indexer.readers.item import SourceItem

_LARGE_SHARE = 0.5
_FEW = 10
"""So many documents may go at once without being asked for."""


@dataclass(slots=True)
class Synced:
    """What a sync did, or would do. Ids of documents, sorted; `kept` are of files that cannot be read now.

    `ingested` is the outcome of reading; None in a dry run.
    """

    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    ingested: Ingested | None = None
    renamed: int = 0
    """Documents that are encoded already under another name."""


class MostlyGoneError(ConflictError):
    """Most documents of a source are gone."""


class _Watched:
    """A source that remembers which documents it gave and which files it could not read."""

    def __init__(self, source: FileSource) -> None:
        self.source = source
        self.given: set[str] = set()
        self.unreadable: set[str] = set()

    @property
    def id(self) -> str:
        return self.source.id

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def notes(self) -> list[str]:
        return self.source.notes

    def items(self, after: str | None = None) -> Iterator[SourceItem]:
        for item in self.source.items(after):
            if item.document is not None:
                self.given.add(item.document.id)
            elif item.outcome == "rejected" or (item.error is not None and item.line > 0):
                # A row that is wrong now may be one that was right: its file's documents stay.
                self.unreadable.add(item.file)
            yield item


def sync(
    app: App,
    collection: str,
    source: FileSource,
    new: NewCollection | None = None,
    *,
    dry_run: bool = False,
    force: bool = False,
    wait: bool = True,
    progress: Progress = silent,
) -> Synced:
    """Make the documents of a source in a collection those that are in its folder now. `source` must have a name.

    Documents of files that cannot be read stay. With `dry_run` nothing is written. Raises NotFoundError if the folder
    is gone, and MostlyGoneError if more than half of the source's documents would be removed, unless `force`: a disk
    that is not mounted looks like an empty folder. What is new is stored then, and nothing is removed.
    """
    watched = _Watched(source)
    stored = _stored(app, collection, source)
    found = Synced()
    if dry_run:
        for item in watched.items():
            if item.document is not None:
                _compare(app, collection, item.document, found)
    else:
        known = set(stored)

        def renamed() -> None:
            engine = app.catalog.engine(collection)
            added = [ident for ident in watched.given if ident not in known]
            if engine.record.dense_dimension and added and known - watched.given:
                found.renamed = reuse_vectors(engine, sorted(known - watched.given), sorted(added))

        found.ingested = ingest_source(
            app, watched, collection, new, wait=wait, resume=False, stored=renamed, progress=progress
        )
    gone = [ident for ident in stored if ident not in watched.given]
    if watched.unreadable:
        for document in listed(app, collection, gone):
            file = str(document.metadata.get("file", ""))
            if any(file == name or file.startswith(f"{name}/") for name in watched.unreadable):
                found.kept.append(document.id)
    kept = set(found.kept)
    found.removed = [ident for ident in gone if ident not in kept]
    found.added.sort()
    found.changed.sort()
    if len(found.removed) > max(_FEW, _LARGE_SHARE * len(stored)) and not force:
        raise MostlyGoneError(
            "most documents of this source are gone, and none was removed",
            received=f"{len(found.removed)} of {len(stored)} documents are in no file any more",
            expected="the folder as it was, or --force",
        )
    if not dry_run:
        delete_all(app, collection, found.removed)
    return found


def _stored(app: App, collection: str, source: FileSource) -> list[str]:
    """The ids of a source's documents.

    Files that were read before sources had names are its too, if the collection has had no other source.
    """
    try:
        ids = matching_ids(app, collection, Terms("source", (source.name,)))
        if set(app.catalog.engine(collection).store.sources()) == {source.id}:
            unnamed = matching_ids(app, collection, And((Exists("file"), Not(Exists("source")))))
            files = [one.id for one in listed(app, collection, unnamed) if one.metadata["file"] == one.id]
            ids = sorted({*ids, *files})
    except NotFoundError:
        return []
    return ids


def _compare(app: App, collection: str, document: Document, found: Synced) -> None:
    try:
        old = app.documents.get(collection, document.id)
    except NotFoundError:
        found.added.append(document.id)
        return
    if old != document:
        found.changed.append(document.id)
