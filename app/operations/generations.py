"""Build, publish and roll back generations. A new one is built while the current one keeps serving searches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hyblink.app.application import App
from hyblink.app.core.clock import now
from hyblink.app.core.types.collections import GenerationRecord
from hyblink.app.encoders.dense.transformer import dense_model_of
from hyblink.app.operations.collections import new_record
from hyblink.indexer.generations import build as building
from hyblink.indexer.generations.build import BuildContext

Progress = Callable[[str, int], None]


def build_context(app: App, progress: Progress = lambda _stage, _count: None) -> BuildContext:
    """Return the parts that building and publishing a generation need."""
    return BuildContext(app.catalog, app.catalog.records(), app.claims, app.jobs, progress=progress)


def encoders_of(app: App, record: GenerationRecord) -> dict[str, Any]:
    """Return a generation's encoders: `bag` for token counts, `encoder` for vectors (None without a dense signal).

    Raises EncoderUnavailableError if one of them is not configured.
    """
    return {
        "bag": app.encoders.bag(record.vdr_encoder),
        "encoder": app.encoders.hybrid_encoder(record) if record.dense_dimension else None,
    }


def rebuild(
    app: App, collection: str, note: str = "", progress: Progress = lambda _stage, _count: None
) -> GenerationRecord:
    """Build the next generation with the encoders of the current settings, verify and publish it; return its record.

    A VDR encoder that was trained for this collection is kept, unless the dense encoder below it changes.
    """
    spec = app.catalog.spec(collection)
    serving = app.catalog.engine(collection).record
    record = new_record(app, spec, parent=serving.id, note=note)
    trained = app.encoders.trained_name(serving.vdr_model)
    if trained and record.vdr_model and dense_model_of(record.dense_encoder) == dense_model_of(serving.dense_encoder):
        record = replace(record, vdr_model=app.encoders.trained_vdr(trained, record.dense_encoder))
    return building.build(
        build_context(app, progress), record, **encoders_of(app, record), keep=app.settings.keep_generations
    )


def build_candidate(
    app: App, collection: str, source: str, vdr_model: str, note: str, progress: Progress
) -> GenerationRecord:
    """Build and verify a copy of generation `source` with another VDR encoder; return its record.

    The candidate is not published: searches still use the current generation.
    """
    there = app.catalog.record(collection, source)
    record = replace(
        there,
        id=app.catalog.next_generation_id(collection),
        created=now(),
        parent=there.id,
        note=note,
        vdr_model=vdr_model,
    )
    return building.build_candidate(build_context(app, progress), record, **encoders_of(app, record))


def publish(app: App, collection: str, generation: str, *, patience_s: float | None = None) -> None:
    """Make a complete generation the current one, after copying into it the writes made since it was built.

    `patience_s` is the longest wait for another writer; None means `ingest.writer_wait_s`. Raises NotFoundError,
    ConflictError.
    """
    record = app.catalog.record(collection, generation)
    patience = app.settings.ingest.writer_wait_s if patience_s is None else patience_s
    building.publish(replace(build_context(app), patience_s=patience), record, **encoders_of(app, record))


def roll_back(app: App, collection: str) -> str:
    """Publish the previous generation again, with all writes made since; return its id.

    Raises ConflictError if there is no previous generation.
    """
    earlier = app.catalog.earlier(collection)
    publish(app, collection, earlier)
    return earlier
