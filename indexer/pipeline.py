"""The ingestion pipeline: items from a source → transactions → indexes, with progress, rejects and resuming.

Each transaction also records how far the source has been read, so that a run that was killed goes on exactly after
what was acknowledged. While the next batch is prepared, the engine brings its indexes to what is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import orjson

from app.core.errors import ConflictError
from app.core.ports import Engine
from app.core.types import BulkItem, BulkResult, Document
from indexer.readers.item import SourceItem

_DONE = "done"
_BATCH_CHARS = 8_000_000


class Source(Protocol):
    """Where items come from."""

    @property
    def id(self) -> str: ...

    def items(self, after: str | None = None) -> Iterator[SourceItem]: ...


class Upsert(Protocol):
    """`DocumentService.upsert`, bound to a collection."""

    def __call__(self, documents: list[Document | BulkItem], progress: tuple[str, str]) -> BulkResult: ...


@dataclass(slots=True)
class IngestReport:
    """What a run did."""

    created: int = 0
    updated: int = 0
    unchanged: int = 0
    rejected: int = 0
    passages: int = 0
    resumed_after: str = ""
    rejects_file: str = ""
    rejects: list[str] = field(default_factory=list)
    """The first few rejected rows, in words."""

    @property
    def documents(self) -> int:
        """Rows seen, rejected ones included."""
        return self.created + self.updated + self.unchanged + self.rejected


_FEW = 10


class _Rejects:
    """The rejects file: one JSON object a line, opened when the first row is rejected."""

    def __init__(self, path: Path, report: IngestReport) -> None:
        self._path = path
        self._report = report

    def add(self, file: str, line: int, code: str, message: str, raw: str) -> None:
        self._report.rejected += 1
        self._report.rejects_file = str(self._path)
        if len(self._report.rejects) < _FEW:
            self._report.rejects.append(f"{file}:{line}: {message}")
        self._path.parent.mkdir(parents=True, exist_ok=True)
        row = {"file": file, "line": line, "code": code, "message": message, "raw": raw}
        with self._path.open("ab") as out:
            out.write(orjson.dumps(row) + b"\n")


def ingest(
    source: Source,
    engine: Engine,
    upsert: Upsert,
    *,
    rejects: Path,
    batch_documents: int,
    resume: bool = True,
    is_current: Callable[[], bool] = lambda: True,
    progress: Callable[[int, int], None] = lambda _documents, _passages: None,
) -> IngestReport:
    """Read the whole source into a collection. Calls `progress` with (documents, passages) after each batch.

    Holds the writer lock for the whole run: a second writer is told so at once.
    """
    report = IngestReport()
    rejected = _Rejects(rejects, report)
    with engine.store.writer():
        if not is_current():
            raise ConflictError("another generation was published while this run waited", expected="try again")
        position = engine.store.progress(source.id) if resume else None
        after = position if position and position != _DONE else None
        report.resumed_after = after or ""
        follower = engine.follow()
        try:
            batch: list[Document | BulkItem] = []
            places: list[tuple[str, int]] = []
            chars, last = 0, after or ""

            def flush(at: str) -> None:
                nonlocal chars
                result = upsert(list(batch), (source.id, at))
                passages = 0
                for item, (file, line) in zip(result.items, places, strict=True):
                    passages += item.passages if item.status in {"created", "updated"} else 0
                    match item.status:
                        case "created":
                            report.created += 1
                        case "updated":
                            report.updated += 1
                        case "unchanged":
                            report.unchanged += 1
                        case _:
                            rejected.add(file, line, item.code, item.message, item.id)
                report.passages += passages
                progress(len(batch), passages)
                batch.clear()
                places.clear()
                chars = 0
                follower.nudge()

            for item in source.items(after):
                last = item.position
                if item.document is None:
                    error = item.error
                    assert error is not None
                    rejected.add(item.file, item.line, error.code, str(error), item.raw)
                    continue
                batch.append(item.document)
                places.append((item.file, item.line))
                chars += len(item.document.text)
                if len(batch) >= batch_documents or chars >= _BATCH_CHARS:
                    flush(last)
            flush(_DONE)
        finally:
            follower.close()
    return report
