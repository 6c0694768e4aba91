"""The one place where parts are put together. Nothing is opened, loaded or read before `build` is called."""

from __future__ import annotations

import logging
import shutil
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from hyblink.app.core.clock import now
from hyblink.app.core.errors import (
    ConflictError,
    EncoderUnavailableError,
    HyblinkError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
    WriterConflictError,
)
from hyblink.app.core.settings import Settings
from hyblink.app.core.types.collections import Annotation, CollectionSpec, GenerationRecord
from hyblink.app.core.types.linking import LinkRequest, Text, check_annotation
from hyblink.app.core.types.search import LINKED_ENTITIES, LinkedEntity, SearchRequest
from hyblink.app.encoders.pool import PRECISIONS, EncoderPool
from hyblink.app.engines.catalog import Catalog, Registry, check_name
from hyblink.app.engines.embedded.registry import FileRegistry
from hyblink.app.engines.embedded.store.schema import SCHEMA_VERSION
from hyblink.app.feedback.feedback import Feedback
from hyblink.app.jobs.celery_jobs import ANNOTATE, ENCODE, QUEUE_OF_JOB, CeleryJobs, uses_celery
from hyblink.app.jobs.claims import Claims
from hyblink.app.jobs.in_process import TRY_AGAIN, InProcessJobs
from hyblink.app.jobs.job import RUN_LONG_TASK, RUN_TASK, DeadLetter, Job, JobCancelledError, TakenOverError
from hyblink.app.jobs.records import JobRecords
from hyblink.app.jobs.running import RunningJob
from hyblink.app.jobs.schedules import Schedule, Schedules
from hyblink.app.linking.annotation import Annotated, annotate
from hyblink.app.linking.knowledge_base import KnowledgeBase
from hyblink.app.linking.service import LinkService
from hyblink.app.operations.retraining import Retraining, discard_candidate
from hyblink.app.search.service import SearchService
from hyblink.indexer.encode import encode_all, encode_waiting
from hyblink.indexer.generations.build import Means, build_candidate, publish
from hyblink.indexer.generations.build import build as build_generation
from hyblink.indexer.ingest.documents import DocumentService
from hyblink.indexer.ingest.ingest_job import check_params, run_ingest_job
from hyblink.indexer.ingest.uploads import Uploads
from hyblink.training.retraining.plan import plan_from

log = logging.getLogger(__name__)


SWEPT = 2048
"""Waiting passages that a sweep looks at: so many blocks for as many workers."""
EVIDENT_HITS = 10
"""Documents whose entities are evidence for what a text mentions."""


@dataclass(slots=True)
class App:
    """Everything wired. Close it when done."""

    settings: Settings
    catalog: Catalog
    encoders: EncoderPool
    jobs: CeleryJobs | InProcessJobs
    claims: Claims
    work: JobRecords
    uploads: Uploads
    feedback: Feedback
    schedules: Schedules
    documents: DocumentService
    search: SearchService
    entities: KnowledgeBase
    linker: LinkService

    def ensure_collection(self, spec: CollectionSpec) -> CollectionSpec:
        """The collection as it is, or newly made by `spec` with an empty first generation."""
        check_name(spec.name)
        try:
            return self.catalog.spec(spec.name)
        except NotFoundError:
            pass
        try:
            self.catalog.create(spec, self.new_record(spec))
        except ConflictError as error:
            if isinstance(error, WriterConflictError):
                raise
            return self.catalog.spec(spec.name)  # somebody else was faster
        return spec

    def new_record(self, spec: CollectionSpec, *, parent: str = "", note: str = "") -> GenerationRecord:
        """A record for the collection's next generation, bound to the encoders that the settings name."""
        dense_id, dimension = "", 0
        if spec.dense_encoder != "none":
            try:
                encoder = self.encoders.default_dense
                dense_id, dimension = encoder.id, encoder.dimension
            except EncoderUnavailableError as error:
                log.warning("no dense signal for %s: %s", spec.name, error)
        return GenerationRecord(
            id=self.catalog.next_generation_id(spec.name),
            collection=spec.name,
            created=now(),
            schema_version=SCHEMA_VERSION,
            analyzer=spec.analyzer,
            dense_encoder=dense_id,
            dense_dimension=dimension,
            vdr_encoder=self.encoders.default_bag.id,
            dense_index=spec.dense_index,
            parent=parent,
            note=note,
            vdr_model=self.encoders.default_vdr_model if dense_id and spec.vdr_encoder != "none" else "",
        )

    def encode_now(
        self,
        collection: str,
        generation: str | None = None,
        progress: Callable[[int], None] = lambda _: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> int:
        """Encode everything that waits in a generation; how many passages that were."""
        engine = self.catalog.engine(collection, generation)
        if not engine.record.dense_dimension:
            return 0
        return encode_all(engine, self.encoders.full(engine.record), self.claims, progress, stop)

    def means(self, progress: Callable[[str, int], None] = lambda _stage, _count: None) -> Means:
        """What generations are built and published with."""
        return Means(self.catalog, self.catalog.records(), self.claims, self.jobs, progress=progress)

    def encoders_of(self, record: GenerationRecord) -> dict[str, Any]:
        """`bag` and `encoder` of a generation. Raises EncoderUnavailableError where one of them is not configured."""
        return {
            "bag": self.encoders.bag(record.vdr_encoder),
            "encoder": self.encoders.full(record) if record.dense_dimension else None,
        }

    def rebuild(
        self, collection: str, note: str = "", progress: Callable[[str, int], None] = lambda _stage, _count: None
    ) -> GenerationRecord:
        """The collection's next generation, made with the encoders that the settings name now, verified, published.

        A VDR encoder that was trained for the collection stays.
        """
        spec = self.catalog.spec(collection)
        now_there = self.catalog.engine(collection).record
        record = self.new_record(spec, parent=now_there.id, note=note)
        trained = self.encoders.trained_name(now_there.vdr_model)
        if trained and record.vdr_model and record.dense_encoder == now_there.dense_encoder:
            record = replace(record, vdr_model=self.encoders.trained_vdr(trained, record.dense_encoder))
        return build_generation(
            self.means(progress), record, **self.encoders_of(record), keep=self.settings.keep_generations
        )

    def build_candidate(
        self, collection: str, source: str, vdr_model: str, note: str, progress: Callable[[str, int], None]
    ) -> GenerationRecord:
        """A generation like `source` but for its VDR encoder, whole and verified; it does not answer yet."""
        there = self.catalog.record(collection, source)
        record = replace(
            there,
            id=self.catalog.next_generation_id(collection),
            created=now(),
            parent=there.id,
            note=note,
            vdr_model=vdr_model,
        )
        return build_candidate(self.means(progress), record, **self.encoders_of(record))

    def publish(self, collection: str, generation: str, *, patience_s: float | None = None) -> None:
        """Let a whole generation answer, after what it has missed was written into it.

        `patience_s` is how long a writer is waited for, by default as long as a write would wait. Raises NotFoundError,
        ConflictError.
        """
        record = self.catalog.record(collection, generation)
        patience = self.settings.ingest.writer_wait_s if patience_s is None else patience_s
        publish(replace(self.means(), patience_s=patience), record, **self.encoders_of(record))

    def roll_back(self, collection: str) -> str:
        """Let the generation before the current one answer again, with all that was written since; its id.

        Raises ConflictError where there is none.
        """
        earlier = self.catalog.earlier(collection)
        self.publish(collection, earlier)
        return earlier

    def encode_waiting(self, collection: str, generation: str, stop: Callable[[], bool]) -> None:
        """Encode what waits and nobody is at; nothing where the generation has gone."""
        try:
            engine = self.catalog.engine(collection, generation)
        except NotFoundError:
            return
        if engine.record.dense_dimension:
            encode_waiting(engine, self.encoders.full(engine.record), self.claims, stop=stop)

    def annotate_waiting(self, collection: str, stop: Callable[[], bool]) -> None:
        """Annotate the documents that wait for it; nothing where the collection is not annotated."""
        try:
            annotation = self.catalog.annotation(collection)
        except NotFoundError:
            return
        if annotation is not None:
            self.annotate(collection, annotation, waiting_only=True, stop=stop)

    def start_ingestion(self, collection: str, params: Mapping[str, Any], by: str = "") -> Job:
        """A job that reads an upload, a folder or a package into a collection. Raises UserError."""
        checked = check_params(params, self.settings, self.uploads)
        if self.ensure_collection(checked.spec(collection)).kind == "entities":
            raise ConflictError("the collection is a knowledge base", received=collection, expected="entities:bulk")
        return self.work.create("ingest", collection, params, by)

    def run_job(self, job_id: str, stop: Callable[[], bool]) -> None:
        """Run a job for a slice of time, if nobody else is at it."""
        running = self.work.take(job_id)
        if running is None:
            return
        collection = running.job.collection
        try:
            if running.job.kind == "ingest":
                engine = self.catalog.engine(collection)
                run_ingest_job(
                    running,
                    engine=engine,
                    service=self.documents,
                    uploads=self.uploads,
                    settings=self.settings,
                    is_current=lambda: self.catalog.current(collection) == engine.record.id,
                    stop=stop,
                )
            elif running.job.kind == "rebuild":
                self._run_rebuild(running)
            elif running.job.kind == "retrain":
                with running.alive(self.settings.jobs.silent_s / 3):
                    Retraining(self, running).run()
                if running.job.state == "cancelled":
                    discard_candidate(self.catalog, running.job)
            else:
                known = ", ".join(QUEUE_OF_JOB)
                raise InvalidInputError("unknown kind of job", received=running.job.kind, expected=known)
        except TakenOverError as error:
            log.warning("job %s: %s", job_id, error)
        except JobCancelledError:
            running.cancelled()
            discard_candidate(self.catalog, running.job)
        except Exception as error:
            # Whatever went wrong has to stand in the job's record.
            log.warning("job %s: %s", job_id, error, exc_info=not isinstance(error, HyblinkError))
            may_pass = isinstance(error, (*TRY_AGAIN, ConflictError))
            running.failed(error, traceback.format_exc(), may_pass=may_pass)

    def tidy(self) -> None:
        """Delete what is kept no longer: old generations, uploads, ended jobs, dead letters."""
        for name in self.catalog.names():
            self.catalog.drop_old(name, self.settings.keep_generations)
        self.uploads.tidy(self.settings.jobs.keep_days)
        self.work.tidy(self.settings.jobs.keep_days)
        for job in self.work.list(states=("cancelled", "refused"), limit=SWEPT):
            if job.kind == "retrain" and job.collection in self.catalog.names():
                discard_candidate(self.catalog, job)  # whoever should have done so has died
        for folder in self.settings.work_dir.glob("j*"):
            if not self.work.exists(folder.name):
                shutil.rmtree(folder, ignore_errors=True)
        oldest = time.time() - self.settings.jobs.keep_days * 86_400
        for folder in (self.settings.data_dir / "states").glob("*"):
            if folder.is_dir() and max(path.stat().st_mtime for path in (folder, *folder.glob("*"))) < oldest:
                shutil.rmtree(folder, ignore_errors=True)  # a training computes them again
        self.feedback.tidy(self.settings.jobs.keep_clicks_days)

    def merge(self) -> None:
        """Merge the segments and buffers of all indexes that answer."""
        for name in self.catalog.names():
            self.catalog.engine(name).compact()

    def fsck(self, collection: str, *, repair: bool = False) -> list[str]:
        """What differs between the store that answers, its indexes, and the models that it names, in words.

        With `repair` indexes that differ are derived again. Raises NotFoundError.
        """
        engine = self.catalog.engine(collection)
        problems = list(engine.check(repair=repair))
        if engine.record.dense_dimension:
            try:
                self.encoders.full(engine.record)
            except EncoderUnavailableError as error:
                problems.append(str(error))
        return problems

    def check(self) -> dict[str, list[str]]:
        """What `fsck` finds in every collection."""
        found = {name: self.fsck(name) for name in self.catalog.names()}
        for name, problems in found.items():
            for problem in problems:
                log.error("collection %s: %s", name, problem)
        return found

    def replay(self, letter_id: str) -> DeadLetter:
        """Try a dead letter's task again. Raises NotFoundError, ConflictError where its job cannot be resumed."""
        letter = self.work.unbury(letter_id)
        if letter.task == ENCODE:
            self.jobs.encode(letter.args[0], letter.args[1], [0])
        elif letter.task == ANNOTATE:
            self.jobs.annotate(letter.args[0])
        elif letter.task in {RUN_TASK, RUN_LONG_TASK}:
            self.work.resume(letter.args[0])
        return letter

    def start_rebuild(self, collection: str, note: str = "", by: str = "") -> Job:
        """A job that builds and publishes the collection's next generation. Raises NotFoundError."""
        self.catalog.spec(collection)
        return self.work.create("rebuild", collection, {"note": note}, by)

    def start_retraining(self, collection: str, params: Mapping[str, Any], by: str = "") -> Job:
        """A job that trains a collection's encoder anew. Raises NotFoundError, InvalidInputError, ConflictError."""
        plan_from(params)
        record = self.catalog.engine(collection).record
        if not record.dense_dimension or self.encoders.vdr_adapter(record) is None:
            raise ConflictError(
                "the collection has no VDR encoder to train anew", received=record.vdr_model or collection,
                expected="one with vectors and a VDR adapter (encode.vdr_model)",
            )  # fmt: skip
        return self.work.create("retrain", collection, params, by)

    def schedule_retraining(
        self, collection: str, every_hours: float, params: Mapping[str, Any], by: str = ""
    ) -> Schedule:
        """Train a collection's encoder anew again and again. Raises NotFoundError, InvalidInputError."""
        self.catalog.spec(collection)
        plan_from(params)
        return self.schedules.set(collection, every_hours, params, by)

    def approve(self, job_id: str, by: str = "") -> Job:
        """Let a retraining's candidate answer. Raises NotFoundError, ConflictError where none waits for it."""
        return self.work.approve(job_id, by)

    def cancel_job(self, job_id: str) -> Job:
        """Stop a job; a candidate that waits for approval is thrown away. Raises NotFoundError, ConflictError."""
        job = self.work.cancel(job_id)
        if job.state == "cancelled":
            discard_candidate(self.catalog, job)
        return job

    def _run_rebuild(self, running: RunningJob) -> None:
        told: dict[str, int] = {}

        def progress(stage: str, count: int) -> None:
            told[stage] = told.get(stage, 0) + count
            running.report(stage=stage, progress=told)

        with running.alive(self.settings.jobs.silent_s / 3):
            built = self.rebuild(running.job.collection, str(running.job.params.get("note", "")), progress)
        running.done({"generation": built.id, **told})

    def sweep(self) -> None:
        """Queue again what the store says is to be done and nobody is at."""
        for name in self.catalog.names():
            try:
                engine = self.catalog.engine(name)
                if engine.record.dense_dimension and not self.claims.live(engine):
                    self.jobs.encode(name, engine.record.id, engine.store.reader().unencoded(SWEPT).tolist())
                if self.catalog.annotation(name) is not None:
                    self.jobs.annotate(name)
            except HyblinkError as error:
                log.error("collection %s: %s", name, error)
        for due in self.schedules.take_due(time.time()):
            try:
                self.start_retraining(due.collection, due.params, due.by)
            except UnavailableError as error:
                self.schedules.put_off(due)
                log.warning("the scheduled retraining of %s has to wait: %s", due.collection, error)
            except HyblinkError as error:
                log.warning("the scheduled retraining of %s did not begin: %s", due.collection, error)
        self.work.sweep()

    def annotate(
        self,
        collection: str,
        annotation: Annotation,
        *,
        waiting_only: bool = False,
        progress: Callable[[int], None] = lambda _: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> Annotated:
        """Keep in documents' metadata which entities of a knowledge base they mention."""
        check_annotation(self.catalog.spec(collection), annotation)
        return annotate(
            self.catalog, self.documents, self.linker, collection, annotation, waiting_only=waiting_only,
            max_chars=self.settings.link.max_text_chars, progress=progress, stop=stop,
        )  # fmt: skip

    def annotate_always(self, collection: str, annotation: Annotation | None) -> None:
        """Annotate documents as they come, those that are there first; None: no more. Raises NotFoundError."""
        self.catalog.save_annotation(collection, annotation)
        if annotation is not None:
            self.jobs.annotate(collection)

    def with_evidence(self, request: LinkRequest, collection: str, hits: int) -> LinkRequest:
        """The request, each of its texts with what the best documents for it are annotated with. Raises UserError."""
        self.linker.check(request)
        return replace(request, texts=tuple(self._evident(one, collection, hits) for one in request.texts))

    def _evident(self, text: Text, collection: str, hits: int) -> Text:
        query = text.text[: self.settings.search.max_query_chars]
        if not query.strip():
            return text
        found = self.search.search(
            collection, SearchRequest(query, k=hits, candidates=max(hits, 50), highlight=False)
        ).hits
        counted: Counter[str] = Counter()
        for hit in found:
            entities = hit.metadata.get(LINKED_ENTITIES)
            if isinstance(entities, list):
                counted.update(entities)
        return replace(text, evidence=tuple((name, count / len(found)) for name, count in counted.items()))

    def query_entities(
        self, kb: str, query: str, threshold: float | None = None, *, documents: str = "", evidence: float = 0.0
    ) -> tuple[LinkedEntity, ...]:
        """The entities that a query mentions, each once, the most probable first.

        With `evidence`, what the best documents for the query are annotated with counts for as much.
        """
        request = LinkRequest((Text(query),), shown=1, rerank=False, threshold=threshold)
        if evidence:
            request = replace(self.with_evidence(request, documents, EVIDENT_HITS), evidence=evidence)
        result = self.linker.link(kb, request)
        found: dict[str, LinkedEntity] = {}
        for link in result.texts[0].links:
            if link.entity_id is not None:
                known = found.get(link.entity_id)
                if known is None or link.probability > known.probability:
                    found[link.entity_id] = LinkedEntity(link.entity_id, link.title, link.probability)
        return tuple(sorted(found.values(), key=lambda one: (-one.probability, one.id)))

    def close(self) -> None:
        """Stop background work and close what is open."""
        self.jobs.close()
        self.search.close()
        self.linker.close()
        self.catalog.close()


def _registry(settings: Settings) -> Registry:
    if settings.engine == "embedded":
        return FileRegistry(settings)
    from hyblink.app.engines.opensearch.registry import ClusterRegistry

    return ClusterRegistry(settings)


def build(settings: Settings | None = None) -> App:
    """Wire the application from settings (by default: environment, hyblink.toml, defaults)."""
    settings = settings or Settings()
    for name, known in PRECISIONS.items():
        received = getattr(settings.encode, name)
        if received not in known:
            raise InvalidInputError(f"bad encode.{name}", received=received, expected=", ".join(known))
    catalog = Catalog(_registry(settings))
    encoders = EncoderPool(settings)
    app: App
    jobs = CeleryJobs(settings) if uses_celery(settings) else InProcessJobs(lambda: app)
    records = catalog.records()
    documents = DocumentService(
        catalog,
        encoders.bag,
        jobs,
        max_document_chars=settings.ingest.max_document_chars,
        max_bulk_documents=settings.api.max_bulk_documents,
    )
    app = App(
        settings,
        catalog,
        encoders,
        jobs,
        Claims(records, lease_s=settings.jobs.claim_s),
        JobRecords(
            records,
            jobs,
            silent_s=settings.jobs.silent_s,
            max_attempts=settings.jobs.max_attempts,
            retry_s=settings.jobs.retry_s,
        ),
        Uploads(settings.jobs.uploads or settings.data_dir / "uploads", max_bytes=settings.jobs.max_upload_bytes),
        Feedback(records),
        Schedules(records),
        documents,
        SearchService(catalog, encoders, settings.search),
        KnowledgeBase(
            documents, max_chars=settings.ingest.max_document_chars, max_bulk=settings.api.max_bulk_documents
        ),
        LinkService(catalog, encoders, settings.link),
    )
    return app
