"""Lists and deletes the documents of a collection, all or those that pass a filter."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import orjson

from hyblink.app.application import App
from hyblink.app.core.errors import ConflictError
from hyblink.app.core.filters import Filter
from hyblink.app.core.types.documents import Document

_AT_ONCE = 1000


def matching_ids(app: App, collection: str, tree: Filter | None = None) -> list[str]:
    """The ids of the documents that pass a filter (None: of all), sorted. Raises NotFoundError."""
    reader = app.catalog.engine(collection).store.reader()
    rows = reader.live_rows() if tree is None else reader.select(tree).rows()
    return sorted(reader.doc_ids(np.unique(reader.document_keys(rows))))


def listed(app: App, collection: str, ids: list[str]) -> Iterator[Document]:
    """The documents with these ids, in this order; one that is gone meanwhile is passed over."""
    reader = app.catalog.engine(collection).store.reader()
    for ident in ids:
        found = reader.get_document(ident)
        if found is not None:
            yield found


@dataclass(frozen=True, slots=True)
class Page:
    """Some of the documents of a collection, of `total`. `left` come after the id `last`, which is "" for none."""

    documents: list[Document]
    total: int
    left: int
    last: str


def page_of(app: App, collection: str, tree: Filter | None, after: str, limit: int) -> Page:
    """At most `limit` documents that pass a filter (None: all), by id, those after an id. Raises NotFoundError."""
    ids = matching_ids(app, collection, tree)
    begin = bisect_right(ids, after)
    some = ids[begin : begin + limit]
    left = max(0, len(ids) - begin - len(some))
    return Page(list(listed(app, collection, some)), len(ids), left, some[-1] if some else "")


def lines_of(app: App, collection: str, ids: list[str]) -> Iterator[bytes]:
    """The documents with these ids as JSON lines."""
    for document in listed(app, collection, ids):
        row = asdict(document)
        if not row["sections"]:
            del row["sections"]
        yield orjson.dumps(row) + b"\n"


def export_lines(app: App, collection: str, ids: list[str], path: Path) -> int:
    """Write documents as JSON lines to a new file; return how many. Raises ConflictError if there is a file."""
    if path.exists():
        raise ConflictError("the file exists already", received=str(path), expected="a new file")
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    count = 0
    try:
        with beside.open("wb") as file:
            for line in lines_of(app, collection, ids):
                file.write(line)
                count += 1
        beside.rename(path)
    finally:
        beside.unlink(missing_ok=True)
    return count


def delete_all(app: App, collection: str, ids: list[str]) -> int:
    """Delete documents, a thousand at a time; return how many there were. Raises NotFoundError, WriterConflictError."""
    deleted = 0
    for start in range(0, len(ids), _AT_ONCE):
        result = app.documents.delete(collection, ids[start : start + _AT_ONCE])
        deleted += sum(item.status == "deleted" for item in result.items)
    return deleted
