"""Ingest sources into collections, load entities into knowledge bases, and export collections."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path

from hyblink.app.application import App
from hyblink.app.core.ports.engine import Engine
from hyblink.app.core.ports.store import SourceProgress
from hyblink.app.core.progress import Progress, silent
from hyblink.app.core.types.collections import CollectionSpec
from hyblink.app.core.types.documents import BulkItem, BulkResult, Document
from hyblink.app.linking.knowledge_base import entity_spec
from hyblink.app.operations.collections import ensure_collection
from hyblink.app.operations.encoding import encode_now
from hyblink.app.operations.patience import patiently
from hyblink.indexer.ingest.pipeline import IngestReport, RejectsFile, Source, ingest

_BATCH = 2000
_REJECTS_SHOWN, _SKIPPED_SHOWN = 20, 100
_MERGED_AFTER, _MERGE_PATIENCE_S = 0.005, 90.0
"""A run that replaces more of a collection than this merges its index at its end."""


@dataclass(frozen=True, slots=True)
class NewCollection:
    """The options of a collection that ingestion creates. They have no effect on an existing collection."""

    whole: bool = False
    """Index each document as one passage instead of splitting it into chunks."""
    analyzer: str = "english"
    dense_index: str = "auto"
    no_dense: bool = False

    def spec(self, name: str) -> CollectionSpec:
        """Return the spec of a collection with this name and these options."""
        made = CollectionSpec(
            name,
            analyzer=self.analyzer,
            dense_encoder="none" if self.no_dense else "default",
            dense_index=self.dense_index,
        )
        return replace(made, chunk_chars=0, chunk_overlap_chars=0) if self.whole else made


@dataclass(frozen=True, slots=True)
class Ingested:
    """The outcome of ingesting a source. `rejects_file` is empty if no row was rejected."""

    collection: str
    report: IngestReport
    rejects_file: str
    seconds: float
    encoded: int
    encode_seconds: float
    outdated: float = 0.0
    """The share of replaced passages that BM25's statistics still count; see `Engine.outdated`."""

    @property
    def nothing_read(self) -> bool:
        """Whether there was something to read, and none of it could be."""
        report = self.report
        read = report.created + report.updated + report.unchanged + report.files_read
        return not read and not report.resumed_after


def ingest_source(
    app: App,
    source: Source,
    collection: str,
    new: NewCollection | None = None,
    *,
    wait: bool = True,
    resume: bool = True,
    stored: Callable[[], None] = lambda: None,
    progress: Progress = silent,
) -> Ingested:
    """Ingest a source into a collection, which is created with the options `new` if it does not exist.

    With `wait`, also encode every passage before returning; `stored` is called before that. With `resume`, an
    interrupted run continues where it stopped. Raises UserError, ConflictError.
    """
    patience = app.settings.ingest.storage_wait_s

    def begun() -> Engine:
        ensure_collection(app, (new or NewCollection()).spec(collection))
        return app.catalog.engine(collection)

    engine = patiently(begun, app.catalog.names, patience, progress)
    rejects = app.settings.data_dir / "rejects" / f"{collection}-{time.strftime('%Y%m%dT%H%M%S')}.jsonl"
    started = time.perf_counter()
    advance, told = progress("documents"), 0

    parts: list[IngestReport] = []  # one, and another for each time that the storage was away

    def tell(report: IngestReport) -> None:
        nonlocal told
        if not parts or parts[-1] is not report:
            parts.append(report)
        done = sum(part.documents for part in parts)
        advance(done - told, f"{done / (time.perf_counter() - started):,.0f}/s")
        told = done

    def upsert(documents: list[Document | BulkItem], progress: SourceProgress) -> BulkResult:
        return app.documents.upsert(collection, documents, encode=False, progress=progress)

    def read() -> IngestReport:
        return ingest(
            source,
            engine,
            upsert,
            rejects=RejectsFile(rejects),
            batch_documents=app.settings.ingest.batch_documents,
            resume=resume or bool(parts),
            is_current=lambda: app.catalog.current(collection) == engine.record.id,
            progress=tell,
        )

    report = _added_up(parts, patiently(read, engine.store.change, patience, progress))
    seconds, started = time.perf_counter() - started, time.perf_counter()
    encoded = 0
    stored()
    if wait:
        encode = partial(encode_with_progress, app, collection, progress)
        encoded = patiently(encode, engine.store.change, patience, progress)
    if report.updated:
        engine.tidy(_MERGED_AFTER, patience_s=_MERGE_PATIENCE_S)
    return Ingested(
        collection,
        report,
        str(rejects) if report.rejected or report.files_skipped else "",
        seconds,
        encoded,
        time.perf_counter() - started,
        engine.outdated(),
    )


def _added_up(parts: Sequence[IngestReport], last: IngestReport) -> IngestReport:
    """The report on a run that went on several times, as if it had been one."""
    earlier = [part for part in parts if part is not last]
    for part in earlier:
        last.created += part.created
        last.updated += part.updated
        last.unchanged += part.unchanged
        last.rejected += part.rejected
        last.passages += part.passages
        last.replaced += part.replaced
        last.files_read += part.files_read
        last.files_skipped += part.files_skipped
        last.files_rejected += part.files_rejected
    if earlier:
        last.resumed_after = earlier[0].resumed_after
        last.rejects = [text for part in (*earlier, last) for text in part.rejects][:_REJECTS_SHOWN]
        last.skipped = [text for part in (*earlier, last) for text in part.skipped][:_SKIPPED_SHOWN]
    return last


def added_up(parts: Sequence[Ingested]) -> Ingested:
    """The outcome of several ingestions into one collection, one after the other, as if they had been one."""
    last = parts[-1]
    if len(parts) == 1:
        return last
    notes = [note for part in parts for note in part.report.notes]
    rows = sum(part.report.rows for part in parts)
    report = replace(_added_up([part.report for part in parts], last.report), notes=notes, rows=rows)
    return replace(
        last,
        report=report,
        seconds=sum(part.seconds for part in parts),
        rejects_file=next((part.rejects_file for part in reversed(parts) if part.rejects_file), ""),
    )


def encode_with_progress(app: App, collection: str, progress: Progress = silent) -> int:
    """Encode every passage of a collection that has no vector yet, with a progress bar; return how many."""
    engine = app.catalog.engine(collection)
    counts = engine.store.reader().counts()
    if not engine.record.dense_dimension or counts.encoded >= counts.passages:
        return 0
    started, done = time.perf_counter(), 0
    advance = progress("encoding", counts.passages - counts.encoded)

    def tell(count: int) -> None:
        nonlocal done
        done += count
        advance(count, f"{done / (time.perf_counter() - started):,.0f}/s")

    encoded = encode_now(app, collection, progress=tell)
    engine.snapshot()
    return encoded


@dataclass(slots=True)
class Loaded:
    """The outcome of loading entities. `skipped` counts rows without a label; `rejects` holds the first messages."""

    kb: str
    created: int = 0
    updated: int = 0
    unchanged: int = 0
    rejected: int = 0
    skipped: int = 0
    encoded: int = 0
    seconds: float = 0.0
    rejects: list[str] = field(default_factory=list)

    @property
    def entities(self) -> int:
        """How many rows with a label were read, rejected ones included."""
        return self.created + self.updated + self.unchanged + self.rejected


def load_entities(
    app: App,
    kb: str,
    rows: Iterator[object],
    *,
    no_aliases: bool = False,
    analyzer: str = "english",
    dense_index: str = "auto",
    wait: bool = True,
    progress: Progress = silent,
) -> Loaded:
    """Load entity rows into a knowledge base, which is created if it does not exist.

    A row that is None stands for an entity without a label and is skipped. With `wait`, also encode the entities
    before returning. `analyzer` and `dense_index` apply only to a new knowledge base.
    """
    app.entities.check(ensure_collection(app, entity_spec(kb, analyzer=analyzer, dense_index=dense_index)))
    loaded = Loaded(kb)
    started = time.perf_counter()
    advance = progress("entities")
    while some := list(islice(rows, min(_BATCH, app.settings.api.max_bulk_documents))):
        batch = [row for row in some if row is not None]
        loaded.skipped += len(some) - len(batch)
        if no_aliases:
            batch = [{**row, "aliases": []} if isinstance(row, dict) else row for row in batch]
        write = partial(app.entities.bulk, kb, batch, encode=False)
        for item in patiently(write, app.catalog.names, app.settings.ingest.storage_wait_s, progress).items:
            setattr(loaded, item.status, getattr(loaded, item.status) + 1)
            if item.status == "rejected" and len(loaded.rejects) < _REJECTS_SHOWN:
                loaded.rejects.append(f"{item.id}: {item.message}")
        advance(len(batch))
    loaded.seconds = time.perf_counter() - started
    engine = app.catalog.engine(kb)
    if wait:
        loaded.encoded = encode_with_progress(app, kb, progress)
    elif engine.record.dense_dimension:
        app.jobs.encode(kb, engine.record.id, engine.store.reader().unencoded(1).tolist())
    return loaded


def export_to(app: App, collection: str, folder: Path, progress: Progress = silent) -> int:
    """Export a collection with its VDR weights and vectors to a folder; return the number of documents."""
    from hyblink.indexer.transfer import export_collection

    engine, spec = app.catalog.engine(collection), app.catalog.spec(collection)
    advance = progress("documents", engine.store.reader().counts().documents)
    return export_collection(engine, spec, folder, advance)
