"""Bulk ingestion as a background job. The source is read in time slices; any worker can take the next slice."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from hyblink.app.core.errors import InvalidInputError, NotFoundError, UnavailableError
from hyblink.app.core.ports.engine import Engine
from hyblink.app.core.ports.store import SourceProgress
from hyblink.app.core.settings import IngestSettings, Settings
from hyblink.app.core.types.collections import CollectionSpec
from hyblink.app.core.types.documents import BulkItem, BulkResult, Document
from hyblink.app.jobs.running import RunningJob
from hyblink.indexer.ingest.fetch import Allowed, fetched, file_name
from hyblink.indexer.ingest.pipeline import IngestReport, ingest, is_done
from hyblink.indexer.ingest.uploads import Uploads
from hyblink.indexer.readers.files import FileSource
from hyblink.indexer.readers.python_package import PythonSource

COUNTS = (
    "created", "updated", "unchanged", "rejected", "passages", "replaced", "files_read", "files_skipped",
    "files_rejected",
)  # fmt: skip
"""The counts of a report that a job tells."""
_LOOK_S = 2.0
_BUSY_S = 5.0
_NOTES_KEPT = 20


class Documents(Protocol):
    """The part of `DocumentService` that a job needs."""

    def upsert(
        self, collection: str, documents: list[Document | BulkItem], *, progress: SourceProgress | None = None
    ) -> BulkResult: ...


@dataclass(frozen=True, slots=True)
class IngestParams:
    """The parameters of an ingestion job.

    Exactly one source must be set: an `upload` id, a `folder` below one of `jobs.roots`, a Python `package`, or a
    `url`. `columns` names the fields that hold id, title and text. `encoding`, `header`, `prefix` and `name` are those
    of `FileSource`. `whole` keeps each document as one passage. The last three fields are settings of a new collection.
    """

    upload: str = ""
    folder: str = ""
    package: str = ""
    url: str = ""
    format: str | None = None
    columns: Mapping[str, str] | None = None
    encoding: str | None = None
    header: bool = True
    keep_boilerplate: bool = False
    ocr: bool = False
    rows: bool = False
    prefix_ids: bool = False
    prefix: str = ""
    name: str = ""
    whole: bool = False
    analyzer: str = "english"
    dense_index: str = "auto"
    no_dense: bool = False

    @property
    def sources(self) -> tuple[str, ...]:
        """The names of the source fields that are set."""
        return tuple(name for name in ("upload", "folder", "package", "url") if getattr(self, name))

    def spec(self, collection: str) -> CollectionSpec:
        """The settings of the collection to create if it does not exist."""
        spec = CollectionSpec(
            collection,
            analyzer=self.analyzer,
            dense_encoder="none" if self.no_dense else "default",
            dense_index=self.dense_index,
        )
        return replace(spec, chunk_chars=0, chunk_overlap_chars=0) if self.whole else spec


def reading_limits(limits: IngestSettings) -> dict[str, Any]:
    """The settings of ingestion as arguments of `FileSource`."""
    return {
        "max_row_bytes": limits.max_row_bytes,
        "max_file_bytes": limits.max_file_bytes,
        "max_chars": limits.max_document_chars,
        "file_seconds": limits.file_time_limit_s,
        "file_memory": limits.file_memory_bytes,
        "languages": limits.detect_language,
        "ocr_languages": limits.ocr_languages,
    }


def source_of(
    params: IngestParams, settings: Settings, uploads: Uploads, source_id: str | None = None
) -> FileSource | PythonSource:
    """The source that a job reads. Raises UserError if it does not exist or the job may not read it.

    A `url` is not a source yet: it is downloaded to an upload first.
    """
    if len(params.sources) != 1:
        raise InvalidInputError(
            "what to ingest?", received=list(params.sources), expected="one of upload, folder, package, url"
        )
    limits = settings.ingest
    if params.package:
        return PythonSource(params.package, max_chars=limits.max_document_chars, source_id=source_id)
    path = uploads.path(params.upload) if params.upload else allowed_folder(params.folder, settings.jobs.roots)
    return FileSource(
        path,
        format=params.format,
        columns=params.columns,
        encoding=params.encoding,
        header=params.header,
        keep_boilerplate=params.keep_boilerplate,
        ocr=params.ocr,
        rows=params.rows,
        prefix_ids=params.prefix_ids,
        prefix=params.prefix,
        name=params.name,
        **reading_limits(limits),
        source_id=source_id,
        inside=None if params.upload else settings.jobs.roots,
    )


def allowed_folder(wanted: str, roots: tuple[Path, ...]) -> Path:
    """Resolve a path on the server, following symbolic links.

    Raises InvalidInputError if it is not below one of `roots`, NotFoundError if it does not exist.
    """
    try:
        path = Path(wanted).expanduser().resolve()
    except (OSError, ValueError, RuntimeError) as error:
        raise InvalidInputError(f"not a path: {error}", received=wanted) from error
    if not any(path.is_relative_to(root.expanduser().resolve()) for root in roots):
        raise InvalidInputError(
            "the folder is not among those that jobs may read",
            received=wanted,
            expected="a path below one of jobs.roots",
        )
    if not path.exists():
        raise NotFoundError("no such file or folder", received=wanted)
    return path


def run_ingest_job(
    running: RunningJob,
    *,
    engine: Engine,
    service: Documents,
    uploads: Uploads,
    settings: Settings,
    is_current: Callable[[], bool],
    stop: Callable[[], bool],
) -> None:
    """Ingest for one time slice (`jobs.slice_s`), then mark the job as done or queue it for the next slice.

    The job also pauses if more than `jobs.max_waiting` passages wait for encoding. Raises JobCancelledError if the job
    was cancelled, TakenOverError if another worker runs it.
    """
    job = running.job
    params = IngestParams(**job.params)
    if params.url:
        params = _fetch(running, params, uploads, settings)
    source = source_of(params, settings, uploads, f"job:{job.id}")
    collection = job.collection
    if is_done(engine.store.progress(source.id)):
        running.done(job.progress)
        return
    before: Mapping[str, Any] = job.progress
    kept = {"upload": params.upload} if job.params.get("url") else {}
    total = source.bytes_total if isinstance(source, FileSource) else None
    began = time.monotonic()
    looked = began
    first: float | None = None
    busy = False

    def upsert(documents: list[Document | BulkItem], progress: SourceProgress) -> BulkResult:
        return service.upsert(collection, documents, progress=progress)

    def so_far(report: IngestReport) -> dict[str, Any]:
        seconds = float(before.get("seconds", 0.0)) + time.monotonic() - began
        counts = {name: int(before.get(name, 0)) + getattr(report, name) for name in COUNTS}
        found = {
            **kept,
            **counts,
            "rows": report.rows,
            "seconds": round(seconds, 3),
            "rows_per_s": round(report.rows / seconds, 1),
        }
        if isinstance(source, FileSource) and source.notes:
            found["notes"] = [*dict.fromkeys([*before.get("notes", []), *source.notes])][:_NOTES_KEPT]
        if total and isinstance(source, FileSource):
            read = min(total, source.bytes_read)
            found |= {"bytes": read, "bytes_total": total}
            if read:
                found["eta_s"] = round(seconds * (total - read) / read, 1)
        return found

    def enough() -> bool:
        nonlocal first, looked, busy
        now = time.monotonic()
        if stop():
            return True
        if first is None:  # the slice starts at its first row: skipping to the resume position is no progress
            first = now
            return False
        if now - first > settings.jobs.slice_s:
            return True
        if now - looked > _LOOK_S and engine.record.dense_dimension:
            looked = now
            counts = engine.store.reader().counts()
            busy = counts.passages - counts.encoded > settings.jobs.max_waiting
        return busy

    running.report(stage="reading", message="")
    report = ingest(
        source,
        engine,
        upsert,
        rejects=lambda rows: running.reject(rows, settings.jobs.max_rejects),
        batch_documents=settings.ingest.batch_documents,
        exclusive=False,
        is_current=is_current,
        progress=lambda report: running.report(progress=so_far(report)),
        stop=enough,
    )
    if report.finished:
        running.done(running.job.progress)
    elif busy:
        running.again("waits until fewer passages wait for vectors", _BUSY_S)
    else:
        running.again()


def _fetch(running: RunningJob, params: IngestParams, uploads: Uploads, settings: Settings) -> IngestParams:
    """Download the URL to an upload and return parameters that read it. Later slices reuse the upload."""
    known = running.job.progress.get("upload")
    if known is None:
        running.report(stage="fetching", message="")
        looked = began = time.monotonic()
        longest = settings.jobs.url_timeout_s

        def watched(chunks: Iterator[bytes]) -> Iterator[bytes]:
            nonlocal looked
            for chunk in chunks:
                if time.monotonic() - began > longest:
                    raise UnavailableError(
                        "it takes too long to read", received=params.url, expected=f"{longest:g} s (jobs.url_timeout_s)"
                    )
                if time.monotonic() - looked > _LOOK_S:
                    looked = time.monotonic()
                    running.report()  # raises if the job was cancelled
                yield chunk

        with running.alive(settings.jobs.silent_s / 3), fetched(params.url, allowed_urls(settings)) as chunks:
            known = uploads.store(file_name(params.url), watched(chunks)).id
        running.report(progress={**running.job.progress, "upload": known})
    return replace(params, url="", upload=str(known))


def allowed_urls(settings: Settings) -> Allowed:
    """The servers that ingestion jobs may download from. Raises InvalidInputError for bad settings."""
    return Allowed.of(settings.jobs.url_hosts, settings.jobs.url_networks)


def check_params(params: Mapping[str, Any], settings: Settings, uploads: Uploads, by: str = "") -> IngestParams:
    """Check the parameters of a job that the key `by` requests. Raises UserError if it could not run."""
    try:
        checked = IngestParams(**params)
    except TypeError as error:
        raise InvalidInputError(f"bad parameters: {error}", received=sorted(params)) from error
    try:
        if checked.sources == ("url",):
            allowed_urls(settings).check(checked.url)
            uploads.check(file_name(checked.url))
        else:
            if checked.sources == ("upload",):
                uploads.check_owner(checked.upload, by)
            source_of(checked, settings, uploads)
    except OSError as error:
        raise InvalidInputError(f"it cannot be read: {error}", received=dict(params)) from error
    return checked
