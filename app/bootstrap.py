"""The one place where parts are put together. Nothing is opened, loaded or read before `build` is called."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from app.core.errors import (
    ConflictError,
    EncoderUnavailableError,
    InvalidInputError,
    NotFoundError,
    WriterConflictError,
)
from app.core.ports import BagEncoder, DenseEncoder
from app.core.settings import Settings
from app.core.types import CollectionSpec, GenerationRecord
from app.encoders.bag import BagOfTokens
from app.encoders.dense import DenseTransformer
from app.indexes.catalog import Catalog, Registry, check_name, now
from app.indexes.embedded.registry import FileRegistry
from app.indexes.embedded.schema import SCHEMA_VERSION
from app.search import SearchService
from indexer.documents import DocumentService
from indexer.encode import encode_waiting
from indexer.jobs import InProcessJobs

log = logging.getLogger(__name__)


class EncoderPool:
    """Encoders by id, each made once and shared."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._dense: dict[str, DenseEncoder] = {}
        self._bags: dict[str, BagEncoder] = {}
        self.add_dense(DenseTransformer(settings.encode))
        self._bags_default = BagOfTokens(settings.encode.dense_model)
        self._bags[self._bags_default.id] = self._bags_default
        self._default_dense = next(iter(self._dense))

    @property
    def default_dense(self) -> DenseEncoder:
        """The encoder that the settings name."""
        return self._dense[self._default_dense]

    @property
    def default_bag(self) -> BagEncoder:
        """The bag of tokens over the default encoder's vocabulary."""
        return self._bags_default

    def use_as_default(self, encoder_id: str) -> None:
        """Bind new generations to a known encoder."""
        self._default_dense = self.dense(encoder_id).id

    def add_dense(self, encoder: DenseEncoder) -> None:
        """Make an encoder known under its id."""
        with self._lock:
            self._dense[encoder.id] = encoder

    def dense(self, encoder_id: str) -> DenseEncoder:
        found = self._dense.get(encoder_id)
        if found is None:
            raise EncoderUnavailableError(
                "the generation's dense encoder is not configured",
                received=encoder_id,
                expected=f"one of {', '.join(self._dense)}",
            )
        return found

    def bag(self, encoder_id: str) -> BagEncoder:
        found = self._bags.get(encoder_id)
        if found is None:
            raise EncoderUnavailableError(
                "the generation's VDR vocabulary is not configured",
                received=encoder_id,
                expected=f"one of {', '.join(self._bags)}",
            )
        return found


@dataclass(slots=True)
class App:
    """Everything wired. Close it when done."""

    settings: Settings
    catalog: Catalog
    encoders: EncoderPool
    jobs: InProcessJobs
    documents: DocumentService
    search: SearchService

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
        return encode_waiting(engine, self.encoders.dense(engine.record.dense_encoder), progress, stop)

    def close(self) -> None:
        """Stop background work and close what is open."""
        self.jobs.close()
        self.search.close()
        self.catalog.close()


def _registry(settings: Settings) -> Registry:
    if settings.engine == "embedded":
        return FileRegistry(settings)
    from app.indexes.opensearch.registry import ClusterRegistry

    return ClusterRegistry(settings)


def build(settings: Settings | None = None) -> App:
    """Wire the application from settings (by default: environment, hyblink.toml, defaults)."""
    settings = settings or Settings()
    if settings.encode.precision not in {"auto", "fp32", "bf16"}:
        raise InvalidInputError(
            "bad encode.precision", received=settings.encode.precision, expected="auto, fp32 or bf16"
        )
    catalog = Catalog(_registry(settings))
    encoders = EncoderPool(settings)
    app: App

    def work(collection: str, generation: str, stop: Callable[[], bool]) -> None:
        app.encode_now(collection, generation, stop=stop)

    jobs = InProcessJobs(work)
    documents = DocumentService(
        catalog,
        encoders.bag,
        jobs,
        max_document_chars=settings.ingest.max_document_chars,
        max_bulk_documents=settings.api.max_bulk_documents,
    )
    app = App(settings, catalog, encoders, jobs, documents, SearchService(catalog, encoders, settings.search))
    return app
