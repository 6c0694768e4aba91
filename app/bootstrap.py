"""The one place where parts are put together. Nothing is opened, loaded or read before `build` is called."""

from __future__ import annotations

import logging
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from app.core.errors import (
    ConflictError,
    EncoderUnavailableError,
    HyblinkError,
    InvalidInputError,
    NotFoundError,
    WriterConflictError,
)
from app.core.linking import LinkRequest, Text
from app.core.manifest import MANIFEST
from app.core.ports import (
    BagEncoder,
    CrossEncoder,
    DenseEncoder,
    EntityCross,
    FullEncoder,
    InTextEncoder,
    MentionEncoder,
)
from app.core.settings import Settings
from app.core.types import (
    LINKED_ENTITIES,
    Annotation,
    CollectionSpec,
    GenerationRecord,
    LinkedEntity,
    SearchRequest,
    VdrMode,
)
from app.encoders.bag import BagOfTokens
from app.encoders.cross_encoder import DEFAULT as SHIPPED_CROSS
from app.encoders.cross_encoder import TransformerCrossEncoder
from app.encoders.dense import DenseTransformer
from app.encoders.entity_cross import DEFAULT as SHIPPED_ENTITY_CROSS
from app.encoders.entity_cross import EntityCrossEncoder
from app.encoders.full import Beside, DenseOnly, SharedBackbone, VdrWeights
from app.encoders.mention import DEFAULT as SHIPPED_MENTION
from app.encoders.mention import MentionTower, PlainMention
from app.encoders.models import plain_tokenizer, root_of
from app.encoders.spacy_ner import SpacyDetector
from app.encoders.span_head import DEFAULT as SHIPPED_SPAN_HEAD
from app.encoders.span_head import SpanHead
from app.encoders.vdr_adapter import DEFAULT as SHIPPED_VDR
from app.encoders.vdr_adapter import VdrAdapter
from app.encoders.vdr_model import VdrModel, is_whole_model
from app.indexes.catalog import Catalog, Registry, check_name, now
from app.indexes.embedded.registry import FileRegistry
from app.indexes.embedded.schema import SCHEMA_VERSION
from app.linking.annotation import Annotated, annotate
from app.linking.knowledge_base import KnowledgeBase
from app.linking.linker import LinkService
from app.linking.mention_detection import DETECTORS, SpanDetector
from app.search import SearchService
from indexer.broker import ANNOTATE, ENCODE, CeleryJobs, uses_celery
from indexer.claims import Claims
from indexer.documents import DocumentService
from indexer.encode import encode_all, encode_waiting
from indexer.generations import build as build_generation
from indexer.ingest_job import check_params, run_ingest_job
from indexer.job_records import (
    RUN_LONG_TASK,
    RUN_TASK,
    DeadLetter,
    Job,
    JobCancelledError,
    JobRecords,
    RunningJob,
    TakenOverError,
)
from indexer.jobs import TRY_AGAIN, InProcessJobs
from indexer.uploads import Uploads
from training.feedback import Feedback

log = logging.getLogger(__name__)
_T = TypeVar("_T")


_PRECISIONS = {"precision": ("auto", "fp32", "bf16"), "cross_encoder_precision": ("auto", "fp32", "bf16", "int8")}


class EncoderPool:
    """Encoders by id, each made once and shared."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.RLock()
        self._dense: dict[str, DenseEncoder] = {}
        self._vdr: dict[str, VdrWeights | VdrModel] = {}
        self._full: dict[tuple[str, str], FullEncoder] = {}
        self._cross: CrossEncoder | None = None
        self._mention: dict[str, MentionEncoder | InTextEncoder] = {}
        self._entity_cross: EntityCross | None = None
        self._detectors: dict[str, SpanDetector] = {}
        self._head: SpanHead | None = None
        shipped = DenseTransformer(settings.encode)
        self.add_dense(shipped)
        self._bag = BagOfTokens(settings.encode.dense_model)
        self._bags = {self._bag.id: self._bag}
        self._default_dense = shipped.id
        self._default_vdr, self._default_vdr_reads = self._configured_vdr(shipped), shipped.id

    def _configured_vdr(self, dense: DenseTransformer) -> str:
        """The id of the VDR encoder that the settings name, "" where they name none or it is for another model."""
        wanted = self._settings.encode.vdr_model
        folder = SHIPPED_VDR if wanted == "default" else Path(wanted).expanduser()
        if is_whole_model(folder):
            model = VdrModel(folder, self._settings.encode)
            self._vdr[model.id] = model
            self._bag = BagOfTokens(str(folder))  # its own vocabulary
            self._bags[self._bag.id] = self._bag
            return model.id
        if wanted == "none" or (wanted == "default" and not (folder / MANIFEST).is_file()):
            return ""
        adapter = VdrAdapter(
            folder,
            passage_weights=self._settings.encode.passage_weights,
            embeddings=dense.input_embeddings,
            device=lambda: dense.device,
        )
        if adapter.base != self._settings.encode.dense_model:
            if wanted == "default":
                return ""
            raise InvalidInputError(
                "the VDR adapter reads another model's states",
                received=f"encode.dense_model {self._settings.encode.dense_model}",
                expected=adapter.base,
            )
        self._vdr[adapter.id] = adapter
        return adapter.id

    @property
    def default_dense(self) -> DenseEncoder:
        """The encoder that the settings name."""
        return self._dense[self._default_dense]

    @property
    def default_vdr_model(self) -> str:
        """The id of the VDR encoder that goes with the default dense one; "" where there is none."""
        return self._default_vdr if self._default_vdr_reads == self._default_dense else ""

    @property
    def default_bag(self) -> BagEncoder:
        """The bag of tokens over the default encoder's vocabulary."""
        return self._bag

    def use_as_default(self, encoder_id: str) -> None:
        """Bind new generations to a known encoder."""
        self._default_dense = self.dense(encoder_id).id

    def add_vdr(self, encoder: VdrWeights, *, reads: str) -> None:
        """Make a VDR encoder known; new generations whose dense encoder it reads are bound to it."""
        self._vdr[encoder.id] = encoder
        self._default_vdr, self._default_vdr_reads = encoder.id, reads

    def add_dense(self, encoder: DenseEncoder) -> None:
        """Make an encoder known under its id."""
        with self._lock:
            self._dense[encoder.id] = encoder

    def dense(self, encoder_id: str) -> DenseEncoder:
        """A dense encoder. Raises EncoderUnavailableError where there is none of that id."""
        return _known(self._dense, encoder_id, "dense encoder")

    def bag(self, encoder_id: str) -> BagEncoder:
        """A bag of tokens. Raises EncoderUnavailableError where there is none of that id."""
        return _known(self._bags, encoder_id, "VDR vocabulary")

    def vdr_mode(self, record: GenerationRecord) -> VdrMode:
        """What the generation's VDR encoder does best; bags where it has none."""
        return _known(self._vdr, record.vdr_model, "VDR encoder").mode if record.vdr_model else "bag"

    def full(self, record: GenerationRecord) -> FullEncoder:
        """A generation's encoders together. Raises EncoderUnavailableError where one of them is not configured."""
        key = (record.dense_encoder, record.vdr_model)
        with self._lock:
            if key not in self._full:
                dense = self.dense(record.dense_encoder)
                if not record.vdr_model:
                    return DenseOnly(dense)
                vdr = _known(self._vdr, record.vdr_model, "VDR encoder")
                if isinstance(vdr, VdrModel):
                    return self._full.setdefault(key, Beside(dense, vdr))
                if not isinstance(dense, DenseTransformer):
                    raise EncoderUnavailableError("the VDR encoder needs a dense model to read", received=dense.id)
                self._full[key] = SharedBackbone(dense, vdr, max_tokens=self._settings.encode.max_vdr_tokens)
            return self._full[key]

    def cross(self) -> CrossEncoder:
        """What re-ranks. Raises EncoderUnavailableError where the settings name nothing, or no adapter is shipped."""
        with self._lock:
            if self._cross is None:
                wanted = self._settings.encode.cross_encoder
                if wanted == "none" or (wanted == "default" and not (SHIPPED_CROSS / MANIFEST).is_file()):
                    raise EncoderUnavailableError(
                        "no cross-encoder is configured",
                        received=wanted,
                        expected="encode.cross_encoder: a hub name or folder",
                    )
                model = str(SHIPPED_CROSS) if wanted == "default" else wanted
                self._cross = TransformerCrossEncoder(model, self._settings.encode, self._settings.data_dir / "onnx")
            return self._cross

    def mention(self, record: GenerationRecord) -> MentionEncoder | InTextEncoder:
        """What encodes mentions for a generation's vectors: the adapter of the settings, or its dense encoder as it is.

        Raises EncoderUnavailableError where the settings name an adapter of another dense encoder.
        """
        with self._lock:
            if record.dense_encoder not in self._mention:
                self._mention[record.dense_encoder] = self._mention_for(record.dense_encoder)
            return self._mention[record.dense_encoder]

    def _mention_for(self, dense_id: str) -> MentionEncoder | InTextEncoder:
        wanted = self._settings.link.mention_encoder
        if wanted == "elq":
            head = self._span_head()
            if not head.fits(dense_id):
                raise EncoderUnavailableError("the span head is for other vectors", received=dense_id)
            return head
        folder = SHIPPED_MENTION if wanted == "default" else Path(wanted).expanduser()
        if wanted == "dense" or (wanted == "default" and not (folder / MANIFEST).is_file()):
            return PlainMention(self.dense(dense_id))
        tower = MentionTower(folder, self._settings.encode)
        if tower.fits(dense_id):
            return tower
        if wanted == "default":
            return PlainMention(self.dense(dense_id))
        raise EncoderUnavailableError(
            "the mention encoder is for other vectors", received=f"the collection's {dense_id}",
            expected=f"vectors of {tower.base}",
        )  # fmt: skip

    def entity_cross(self) -> EntityCross:
        """What reads mention and entity together. Raises EncoderUnavailableError where there is none."""
        with self._lock:
            if self._entity_cross is None:
                wanted = self._settings.link.cross_encoder
                if wanted == "none" or (wanted == "default" and not (SHIPPED_ENTITY_CROSS / MANIFEST).is_file()):
                    raise EncoderUnavailableError(
                        "no cross-encoder for entities is configured", received=wanted,
                        expected="link.cross_encoder: a hub name or folder",
                    )  # fmt: skip
                self._entity_cross = EntityCrossEncoder(
                    str(SHIPPED_ENTITY_CROSS) if wanted == "default" else wanted,
                    self._settings.encode,
                    mention_tokens=self._settings.link.mention_tokens,
                    cache=self._settings.data_dir / "onnx",
                )
            return self._entity_cross

    def use_entity_cross(self, encoder: EntityCross) -> None:
        """Read mentions and entities together with this one."""
        self._entity_cross = encoder

    def mention_tokenizer(self) -> Any:
        """The tokenizer of the dense model, which counts the tokens of mentions' contexts."""
        return plain_tokenizer(root_of(self._settings.encode.dense_model))

    def _span_head(self) -> SpanHead:
        with self._lock:
            if self._head is None:
                wanted = self._settings.link.span_head
                folder = SHIPPED_SPAN_HEAD if wanted == "default" else Path(wanted).expanduser()
                self._head = SpanHead(folder, self._settings.encode, threshold=self._settings.link.span_threshold)
            return self._head

    def span_detector(self, name: str) -> SpanDetector:
        """A detector by name: `elq` or `spacy:MODEL`. Raises InvalidInputError for another name."""
        with self._lock:
            if name not in self._detectors:
                if name == "elq":
                    return self._span_head()
                if not name.startswith("spacy:"):
                    raise InvalidInputError("unknown detector", received=name, expected=", ".join(DETECTORS))
                self._detectors[name] = SpacyDetector(name.removeprefix("spacy:"))
            return self._detectors[name]

    def use_cross(self, encoder: CrossEncoder) -> None:
        """Re-rank with this one."""
        self._cross = encoder

    def put_full(self, record: GenerationRecord, encoder: FullEncoder) -> None:
        """Use this encoder for generations like this one, such as one that knows an evaluation's queries."""
        with self._lock:
            self._full[record.dense_encoder, record.vdr_model] = encoder


def _known(encoders: Mapping[str, _T], encoder_id: str, what: str) -> _T:
    found = encoders.get(encoder_id)
    if found is None:
        raise EncoderUnavailableError(
            f"the generation's {what} is not configured",
            received=encoder_id,
            expected=f"one of {', '.join(encoders) or '(none)'}",
        )
    return found


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

    def rebuild(
        self, collection: str, note: str = "", progress: Callable[[str, int], None] = lambda _stage, _count: None
    ) -> GenerationRecord:
        """The collection's next generation, made with the encoders that the settings name now, verified, published."""
        spec = self.catalog.spec(collection)
        record = self.new_record(spec, parent=self.catalog.current(collection), note=note)
        return build_generation(
            self.catalog,
            record,
            bag=self.encoders.bag(record.vdr_encoder),
            encoder=self.encoders.full(record) if record.dense_dimension else None,
            claims=self.claims,
            records=self.catalog.records(),
            keep=self.settings.keep_generations,
            jobs=self.jobs,
            progress=progress,
        )

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
            else:
                raise InvalidInputError("unknown kind of job", received=running.job.kind, expected="ingest, rebuild")
        except TakenOverError as error:
            log.warning("job %s: %s", job_id, error)
        except JobCancelledError:
            running.cancelled()
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
        self.feedback.tidy(self.settings.jobs.keep_clicks_days)

    def merge(self) -> None:
        """Merge the segments and buffers of all indexes that answer."""
        for name in self.catalog.names():
            self.catalog.engine(name).compact()

    def check(self) -> dict[str, list[str]]:
        """Compare every store that answers with its indexes; what differs, by collection."""
        found = {name: self.catalog.engine(name).check() for name in self.catalog.names()}
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
    from app.indexes.opensearch.registry import ClusterRegistry

    return ClusterRegistry(settings)


def build(settings: Settings | None = None) -> App:
    """Wire the application from settings (by default: environment, hyblink.toml, defaults)."""
    settings = settings or Settings()
    for name, known in _PRECISIONS.items():
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
        documents,
        SearchService(catalog, encoders, settings.search),
        KnowledgeBase(
            documents, max_chars=settings.ingest.max_document_chars, max_bulk=settings.api.max_bulk_documents
        ),
        LinkService(catalog, encoders, settings.link),
    )
    return app
