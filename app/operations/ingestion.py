"""Ingest sources into collections, load entities into knowledge bases, and export collections."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from hyblink.app.application import App
from hyblink.app.core.ports.store import SourceProgress
from hyblink.app.core.progress import Progress, silent
from hyblink.app.core.types.collections import CollectionSpec
from hyblink.app.core.types.documents import BulkItem, BulkResult, Document
from hyblink.app.linking.knowledge_base import entity_spec
from hyblink.app.operations.collections import ensure_collection
from hyblink.app.operations.encoding import encode_now
from hyblink.indexer.ingest.pipeline import IngestReport, RejectsFile, Source, ingest

_BATCH = 2000
_REJECTS_SHOWN = 20


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


def ingest_source(
    app: App,
    source: Source,
    collection: str,
    new: NewCollection | None = None,
    *,
    wait: bool = True,
    resume: bool = True,
    progress: Progress = silent,
) -> Ingested:
    """Ingest a source into a collection, which is created with the options `new` if it does not exist.

    With `wait`, also encode every passage before returning. With `resume`, an interrupted run continues where it
    stopped. Raises UserError, ConflictError.
    """
    ensure_collection(app, (new or NewCollection()).spec(collection))
    engine = app.catalog.engine(collection)
    rejects = app.settings.data_dir / "rejects" / f"{collection}-{time.strftime('%Y%m%dT%H%M%S')}.jsonl"
    started = time.perf_counter()
    advance, told = progress("documents"), 0

    def tell(report: IngestReport) -> None:
        nonlocal told
        advance(report.documents - told, f"{report.documents / (time.perf_counter() - started):,.0f}/s")
        told = report.documents

    def upsert(documents: list[Document | BulkItem], progress: SourceProgress) -> BulkResult:
        return app.documents.upsert(collection, documents, encode=False, progress=progress)

    report = ingest(
        source,
        engine,
        upsert,
        rejects=RejectsFile(rejects),
        batch_documents=app.settings.ingest.batch_documents,
        resume=resume,
        is_current=lambda: app.catalog.current(collection) == engine.record.id,
        progress=tell,
    )
    seconds, started = time.perf_counter() - started, time.perf_counter()
    encoded = encode_with_progress(app, collection, progress) if wait else 0
    return Ingested(
        collection,
        report,
        str(rejects) if report.rejected else "",
        seconds,
        encoded,
        time.perf_counter() - started,
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
        for item in app.entities.bulk(kb, batch, encode=False).items:
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
