"""Create, inspect, check and import collections."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from hyblink.app.application import App
from hyblink.app.core.clock import now
from hyblink.app.core.errors import (
    ConflictError,
    CorruptionError,
    EncoderUnavailableError,
    HyblinkError,
    NotFoundError,
    WriterConflictError,
)
from hyblink.app.core.names import check_name
from hyblink.app.core.ports.engine import Engine
from hyblink.app.core.types.collections import CollectionSpec, GenerationRecord
from hyblink.app.core.types.documents import StoreCounts
from hyblink.app.encoders.dense.transformer import dense_model_of
from hyblink.app.engines.embedded.store.schema import SCHEMA_VERSION
from hyblink.indexer.encode import other_vectors
from hyblink.indexer.transfer import import_collection, read_export

log = logging.getLogger(__name__)


def ensure_collection(app: App, spec: CollectionSpec) -> CollectionSpec:
    """Return the spec of the collection `spec.name`; create it with an empty first generation if it does not exist.

    The spec of an existing collection is returned unchanged, even if it differs from `spec`.
    """
    check_name(spec.name)
    try:
        return app.catalog.spec(spec.name)
    except NotFoundError:
        pass
    try:
        app.catalog.create(spec, new_record(app, spec))
    except ConflictError as error:
        if isinstance(error, WriterConflictError):
            raise
        return app.catalog.spec(spec.name)  # somebody else was faster
    return spec


def new_record(app: App, spec: CollectionSpec, *, parent: str = "", note: str = "") -> GenerationRecord:
    """Return a record for the collection's next generation, with the encoders that the settings name.

    Nothing is stored. Without an available dense encoder the record has no dense signal, and a warning is logged.
    """
    dense_id, dimension = "", 0
    if spec.dense_encoder != "none":
        try:
            encoder = app.encoders.default_dense
            dense_id, dimension = encoder.id, encoder.dimension
        except EncoderUnavailableError as error:
            log.warning("no dense signal for %s: %s", spec.name, error)
    return GenerationRecord(
        id=app.catalog.next_generation_id(spec.name),
        collection=spec.name,
        created=now(),
        schema_version=SCHEMA_VERSION,
        analyzer=spec.analyzer,
        dense_encoder=dense_id,
        dense_dimension=dimension,
        vdr_encoder=app.encoders.default_bag.id,
        dense_index=spec.dense_index,
        parent=parent,
        note=note,
        vdr_model=app.encoders.default_vdr_model if dense_id and spec.vdr_encoder != "none" else "",
    )


@dataclass(frozen=True, slots=True)
class CollectionState:
    """A collection's spec, the record of its current generation, and that generation's counts."""

    spec: CollectionSpec
    record: GenerationRecord
    counts: StoreCounts


def collection_state(app: App, name: str) -> CollectionState:
    """Return a collection's spec, current generation and counts. Raises NotFoundError."""
    engine = app.catalog.engine(name)
    return CollectionState(app.catalog.spec(name), engine.record, engine.store.reader().counts())


def fsck(app: App, collection: str, *, repair: bool = False) -> list[str]:
    """Check a collection's current generation; return one message for each problem.

    Compares the store with the indexes derived from it, and checks that the encoders it names can be loaded and make
    the vectors that are stored. With `repair`, indexes that differ are rebuilt from the store. Raises NotFoundError.
    """
    problems = []
    if app.catalog.missing(check_name(collection)):
        told = app.catalog.restore(collection) if repair else "`hyblink fsck --repair` restores it"
        problems.append(f"its description or what it serves is missing, its documents are there: {told}")
        if not repair:
            return problems
    try:
        engine = app.catalog.engine(collection)
        problems += engine.check(repair=repair)
    except CorruptionError as error:
        return [*problems, str(error)]
    if engine.record.dense_dimension:
        try:
            problems += vector_problems(app, engine)
        except EncoderUnavailableError as error:
            problems.append(str(error))
    return problems


def vector_problems(app: App, engine: Engine) -> list[str]:
    """A message if the stored vectors are not those of the collection's encoder in its precision, else nothing.

    Raises EncoderUnavailableError.
    """
    record = engine.record
    cosine = other_vectors(engine, app.encoders.hybrid_encoder(record))
    if cosine is None:
        return []
    problem = (
        f"the stored vectors are not those of {record.dense_encoder} (cosine {cosine:.5f}): another "
        f"precision or weights; `hyblink generations rebuild -c {record.collection}` encodes all passages again"
    )
    return [problem]


def checked_names(app: App) -> list[str]:
    """The names of all collections for `fsck`, damaged ones included, sorted."""
    return sorted({*app.catalog.names(), *app.catalog.damaged()})


RECORDS = "(records)"
"""The name under which `fsck` tells of keys, jobs, judgements and the like. No collection can have it."""


def records_problems(app: App) -> list[str]:
    """What is wrong with keys, jobs, judgements and the like, as messages."""
    try:
        return app.catalog.records().problems()
    except CorruptionError as error:
        return [str(error)]


@contextmanager
def unless_dropped(app: App, collection: str, generation: str | None = None) -> Iterator[None]:
    """Let errors pass, with a line in the log, if the collection or generation was dropped during the work on it."""
    try:
        yield
    except Exception as error:
        if app.catalog.has(collection, generation):
            raise
        log.info("%s %s was dropped during the work on it: %s", collection, generation or "", error)


def for_each_collection(app: App, do: Callable[[str], object]) -> None:
    """Call a function with the name of each collection. An error is raised after all have been called: the first one.

    A collection that is dropped meanwhile is passed over.
    """
    failed: list[HyblinkError] = []
    for name in app.catalog.names():
        try:
            with unless_dropped(app, name):
                do(name)
        except HyblinkError as error:
            log.error("collection %s: %s", name, error)
            failed.append(error)
    if failed:
        raise failed[0]


def check_all(app: App) -> dict[str, list[str]]:
    """Run `fsck` on every collection; return the problems by collection, and log each."""
    found = {}
    for name in checked_names(app):
        with unless_dropped(app, name):
            found[name] = fsck(app, name)
    if problems := records_problems(app):
        found[RECORDS] = problems
    for name, problems in found.items():
        for problem in problems:
            log.error("collection %s: %s", name, problem)
    return found


def import_from(app: App, folder: Path, name: str | None = None) -> tuple[str, int]:
    """Create a collection from an exported folder; return its name and its number of documents.

    `name` replaces the exported name. Raises NotFoundError, and ConflictError if the collection exists.
    """
    manifest, spec = read_export(folder)
    spec = replace(spec, name=name or spec.name)
    if spec.name in app.catalog.names():
        raise ConflictError("the collection exists already", received=spec.name, expected="a new name")
    count = 0

    def fill(engine: Engine) -> None:
        nonlocal count
        count = import_collection(folder, manifest, engine)

    app.catalog.create(spec, _as_exported(app, new_record(app, spec), str(manifest.get("dense_encoder", ""))), fill)
    return spec.name, count


def _as_exported(app: App, record: GenerationRecord, exported: str) -> GenerationRecord:
    """The record in the precision of the exported vectors, if they are of the same model and it can be made here.

    Otherwise they are encoded anew, in the record's own.
    """
    if exported == record.dense_encoder or dense_model_of(exported) != dense_model_of(record.dense_encoder):
        return record
    try:
        app.encoders.dense(exported).load()
    except EncoderUnavailableError as error:
        log.warning("the exported vectors are made anew in %s: %s", record.dense_encoder, error)
        return record
    return replace(record, dense_encoder=exported)
