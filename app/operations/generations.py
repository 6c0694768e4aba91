"""Generations: built beside the one that answers, published, rolled back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hyblink.app.application import App
from hyblink.app.core.clock import now
from hyblink.app.core.types.collections import GenerationRecord
from hyblink.app.operations.collections import new_record
from hyblink.indexer.generations import build as building
from hyblink.indexer.generations.build import BuildContext

Progress = Callable[[str, int], None]


def build_context(app: App, progress: Progress = lambda _stage, _count: None) -> BuildContext:
    """What generations are built and published with."""
    return BuildContext(app.catalog, app.catalog.records(), app.claims, app.jobs, progress=progress)


def encoders_of(app: App, record: GenerationRecord) -> dict[str, Any]:
    """`bag` and `encoder` of a generation. Raises EncoderUnavailableError where one of them is not configured."""
    return {
        "bag": app.encoders.bag(record.vdr_encoder),
        "encoder": app.encoders.full(record) if record.dense_dimension else None,
    }


def rebuild(
    app: App, collection: str, note: str = "", progress: Progress = lambda _stage, _count: None
) -> GenerationRecord:
    """The collection's next generation, made with the encoders that the settings name now, verified, published.

    A VDR encoder that was trained for the collection stays.
    """
    spec = app.catalog.spec(collection)
    serving = app.catalog.engine(collection).record
    record = new_record(app, spec, parent=serving.id, note=note)
    trained = app.encoders.trained_name(serving.vdr_model)
    if trained and record.vdr_model and record.dense_encoder == serving.dense_encoder:
        record = replace(record, vdr_model=app.encoders.trained_vdr(trained, record.dense_encoder))
    return building.build(
        build_context(app, progress), record, **encoders_of(app, record), keep=app.settings.keep_generations
    )


def build_candidate(
    app: App, collection: str, source: str, vdr_model: str, note: str, progress: Progress
) -> GenerationRecord:
    """A generation like `source` but for its VDR encoder, whole and verified; it does not answer yet."""
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
    """Let a whole generation answer, after what it has missed was written into it.

    `patience_s` is how long a writer is waited for, by default as long as a write would wait. Raises NotFoundError,
    ConflictError.
    """
    record = app.catalog.record(collection, generation)
    patience = app.settings.ingest.writer_wait_s if patience_s is None else patience_s
    building.publish(replace(build_context(app), patience_s=patience), record, **encoders_of(app, record))


def roll_back(app: App, collection: str) -> str:
    """Let the generation before the current one answer again, with all that was written since; its id.

    Raises ConflictError where there is none.
    """
    earlier = app.catalog.earlier(collection)
    publish(app, collection, earlier)
    return earlier
