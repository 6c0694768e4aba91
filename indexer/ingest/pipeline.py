"""The ingestion pipeline: items from a source → transactions → indexes, with progress, rejects and resuming.

Each transaction also records how far the source has been read, so that a run that was killed goes on exactly after
what was acknowledged, and a run that another has taken over writes nothing more. While the next batch is prepared, the
engine brings its indexes to what is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import orjson

from hyblink.app.core.errors import ConflictError
from hyblink.app.core.ports.engine import Engine
from hyblink.app.core.ports.store import SourceProgress
from hyblink.app.core.types.documents import BulkItem, BulkResult, Document, Reject
from hyblink.indexer.readers.item import SourceItem

_DONE = "done"

_ROWS = "\t"

_BATCH_CHARS = 8_000_000


class Source(Protocol):
    """Where items come from."""

    @property
    def id(self) -> str: ...

    def items(self, after: str | None = None) -> Iterator[SourceItem]: ...


class Upsert(Protocol):
    """`DocumentService.upsert`, bound to a collection."""

    def __call__(self, documents: list[Document | BulkItem], progress: SourceProgress) -> BulkResult: ...


@dataclass(slots=True)
class IngestReport:
    """What a run did. `rows` counts what was read of the source, by earlier runs too; `finished`: to its end."""

    created: int = 0
    updated: int = 0
    unchanged: int = 0
    rejected: int = 0
    passages: int = 0
    resumed_after: str = ""
    rows: int = 0
    finished: bool = False
    rejects: list[str] = field(default_factory=list)
    """The first few rejected rows, in words."""

    @property
    def documents(self) -> int:
        """Rows seen, rejected ones included."""
        return self.created + self.updated + self.unchanged + self.rejected


_FEW = 10


def is_done(position: str | None) -> bool:
    """Whether a stored position says that the source has been read to its end."""
    return bool(position) and str(position).partition(_ROWS)[0] == _DONE


class RejectsFile:
    """One JSON object a line, opened when the first row is rejected."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, rows: list[Reject]) -> None:
        """Append rows."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab") as out:
            out.writelines(orjson.dumps(row) + b"\n" for row in rows)


def ingest(
    source: Source,
    engine: Engine,
    upsert: Upsert,
    *,
    rejects: Callable[[list[Reject]], None],
    batch_documents: int,
    resume: bool = True,
    exclusive: bool = True,
    is_current: Callable[[], bool] = lambda: True,
    progress: Callable[[IngestReport], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> IngestReport:
    """Read a source into a collection until its end, or until `stop`; what then remains is read by the next run.

    Calls `progress` after each batch, `rejects` with the rows that it refuses (again, should a run that was killed have
    named them already). An `exclusive`
    run holds the writer lock throughout, and a second writer is told so; others let writers take turns between batches.
    Raises ConflictError where another run of the source has taken over, or another generation has been published.
    """
    report = IngestReport()
    with engine.store.writer() if exclusive else nullcontext():
        if not is_current():
            raise ConflictError("another generation was published while this run waited", expected="try again")
        before = engine.store.progress(source.id)
        after, _, rows = (before or "").partition(_ROWS)
        if not resume or after == _DONE:
            after, rows = "", ""
        report.resumed_after = after
        report.rows = int(rows or 0)
        follower = engine.follow()
        try:
            batch: list[Document | BulkItem] = []
            places: list[tuple[str, int]] = []
            refused: list[Reject] = []
            chars, last = 0, after

            def refuse(rows: list[Reject]) -> None:
                if rows:
                    rejects(rows)
                    report.rejected += len(rows)
                    few = [f"{one.file}:{one.line}: {one.message}" for one in rows]
                    report.rejects = [*report.rejects, *few][:_FEW]

            def flush(at: str) -> None:
                nonlocal chars, before
                refuse(list(refused))  # before the position moves beyond them
                refused.clear()
                position = f"{at}{_ROWS}{report.rows}"
                result = upsert(list(batch), SourceProgress(source.id, before, position))
                before = position
                for item, (file, line) in zip(result.items, places, strict=True):
                    report.passages += item.passages if item.status in {"created", "updated"} else 0
                    match item.status:
                        case "created":
                            report.created += 1
                        case "updated":
                            report.updated += 1
                        case "unchanged":
                            report.unchanged += 1
                        case _:
                            refused.append(Reject(file, line, item.code, item.message, item.id))
                refuse(list(refused))
                refused.clear()
                batch.clear()
                places.clear()
                chars = 0
                progress(report)
                follower.nudge()

            for item in source.items(after or None):
                if stop():
                    if batch or refused:
                        flush(last)
                    return report
                last = item.position
                report.rows += 1
                if item.document is None:
                    error = item.error
                    assert error is not None
                    refused.append(Reject(item.file, item.line, error.code, str(error), item.raw))
                else:
                    batch.append(item.document)
                    places.append((item.file, item.line))
                    chars += len(item.document.text)
                if len(batch) + len(refused) >= batch_documents or chars >= _BATCH_CHARS:
                    flush(last)
            flush(_DONE)
            report.finished = True
        finally:
            follower.close()
    return report
