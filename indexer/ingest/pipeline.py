"""The ingestion pipeline: reads items from a source and writes them in batches, with progress, rejects and resuming.

Each transaction also stores the read position of the source. A killed run therefore resumes exactly after the last
committed batch, and a run that another run has taken over can write nothing more. While the next batch is prepared, the
engine updates its indexes in the background.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
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
    """A source of documents, such as `FileSource`. `id` is the key of its read position in the store."""

    @property
    def id(self) -> str: ...

    def items(self, after: str | None = None) -> Iterator[SourceItem]: ...


class Upsert(Protocol):
    """`DocumentService.upsert` bound to one collection."""

    def __call__(self, documents: list[Document | BulkItem], progress: SourceProgress) -> BulkResult: ...


@dataclass(slots=True)
class IngestReport:
    """The counts of an ingestion run.

    `rows` is the number of rows read from the source, including those of earlier runs. `finished` says whether the
    source was read to its end. `resumed_after` is the position at which the run started, empty for the beginning.
    """

    created: int = 0
    updated: int = 0
    unchanged: int = 0
    rejected: int = 0
    passages: int = 0
    resumed_after: str = ""
    rows: int = 0
    finished: bool = False
    rejects: list[str] = field(default_factory=list)
    """Messages about the first 10 rejected rows."""
    replaced: int = 0
    """How many rows had the id of a later row of the same run, which stays."""
    files_read: int = 0
    files_skipped: int = 0
    files_rejected: int = 0
    skipped: list[str] = field(default_factory=list)
    """The first 100 files that were left out, each with the reason."""
    notes: list[str] = field(default_factory=list)
    """What was guessed, or read otherwise than it stands in the files."""

    @property
    def documents(self) -> int:
        """The number of rows that this run processed, including rejected ones."""
        return self.created + self.updated + self.unchanged + self.rejected


_FEW, _SKIPPED_SHOWN = 10, 100
_REMEMBERED = 5_000_000
"""So many ids of a run are remembered, to tell how many came twice."""


def is_done(position: str | None) -> bool:
    """Whether a stored position means that the source has been read to its end."""
    return bool(position) and str(position).rpartition(_ROWS)[0] == _DONE


class RejectsFile:
    """Writes rejected rows to a JSONL file. The file is created when the first row is rejected."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, rows: list[Reject]) -> None:
        """Append rejected rows to the file."""
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
    """Read a source into a collection until its end or until `stop` returns True. The next run reads the rest.

    A batch is written after `batch_documents` rows or 8 million characters. `progress` is called after each batch and
    `rejects` with the rejected rows; rows that a killed run has already reported may be reported again. With `resume`
    False, or if the source was read to its end before, reading starts at the beginning. An `exclusive` run holds the
    writer lock throughout, so a second writer gets WriterConflictError. Otherwise other writers may write between
    batches.

    Raises ConflictError if another run of the same source has taken over, or if another generation was published.
    """
    report = IngestReport()
    with engine.store.writer() if exclusive else nullcontext():
        if not is_current():
            raise ConflictError("another generation was published while this run waited", expected="try again")
        before = engine.store.progress(source.id)
        after, _, rows = (before or "").rpartition(_ROWS)
        if not resume or after == _DONE:
            after, rows = "", ""
        report.resumed_after = after
        report.rows = int(rows or 0)
        follower = engine.follow()
        try:
            batch: dict[str, Document] = {}
            places: dict[str, tuple[str, int]] = {}
            seen: set[int] = set()
            refused: list[Reject] = []
            chars, last = 0, after

            def refuse(rows: list[Reject]) -> None:
                if rows:
                    rejects(rows)
                    report.rejected += len(rows)
                    few = [f"{row.file}:{row.line}: {row.message}" for row in rows]
                    report.rejects = [*report.rejects, *few][:_FEW]

            def account(item: SourceItem) -> None:
                """Count what became of a file. The report of rejects has all skipped files too."""
                match item.outcome:
                    case "read":
                        report.files_read += 1
                    case "rejected":
                        report.files_rejected += 1
                    case _:
                        report.files_skipped += 1
                        if len(report.skipped) < _SKIPPED_SHOWN:
                            report.skipped.append(f"{item.file}: {item.why}")
                        rejects([Reject(item.file, 0, "skipped", item.why, "")])

            def flush(at: str) -> None:
                nonlocal chars, before
                refuse(list(refused))  # report them before the stored position moves past them
                refused.clear()
                position = f"{at}{_ROWS}{report.rows}"
                result = upsert(_but_taken(engine, source, batch), SourceProgress(source.id, before, position))
                before = position
                for item, (file, line) in zip(result.items, places.values(), strict=True):
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
                report.rows += item.is_row
                if item.outcome:
                    account(item)
                if item.error is not None:
                    refused.append(Reject(item.file, item.line, item.error.code, str(item.error), item.raw))
                elif item.document is not None:
                    ident = item.document.id
                    if hash(ident) in seen:
                        report.replaced += 1
                        if ident in batch:
                            chars -= len(batch.pop(ident).text)
                            places.pop(ident)
                    elif len(seen) < _REMEMBERED:
                        seen.add(hash(ident))
                    batch[ident] = item.document
                    places[ident] = (item.file, item.line)
                    chars += len(item.document.text)
                if len(batch) + len(refused) >= batch_documents or chars >= _BATCH_CHARS:
                    flush(last)
            report.notes = list(getattr(source, "notes", []))
            flush(_DONE)
            report.finished = True
        finally:
            follower.close()
    return report


def _but_taken(engine: Engine, source: Source, batch: Mapping[str, Document]) -> list[Document | BulkItem]:
    """The documents of a batch. One whose id a document of another source has is refused."""
    mine = str(getattr(source, "name", ""))
    documents: list[Document | BulkItem] = list(batch.values())
    if not mine or all(other == source.id for other in engine.store.sources()):
        return documents
    known = engine.store.reader().metadata_of(list(batch))
    for at, (ident, document) in enumerate(batch.items()):
        theirs = known.get(ident, {}).get("source", mine)
        if theirs != mine and document.metadata.get("source") == mine:
            message = f"the id {ident!r} is that of a document of the source {theirs!r}; --prefix-ids keeps both"
            documents[at] = BulkItem(ident, "rejected", 0, "taken", message)
    return documents
