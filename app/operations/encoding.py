"""Encode passages and queries: dense vectors, and VDR weights where the generation has a VDR encoder."""

from __future__ import annotations

from collections.abc import Callable

from hyblink.app.application import App
from hyblink.app.core.checks import fold
from hyblink.app.core.errors import NotFoundError
from hyblink.app.encoders.cached_queries import CachedQueries
from hyblink.indexer.encode import encode_all
from hyblink.indexer.encode import encode_waiting as encode_rows_waiting


def encode_now(
    app: App,
    collection: str,
    generation: str | None = None,
    progress: Callable[[int], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> int:
    """Encode every passage of a generation that has no vector yet; return how many this call encoded.

    `generation` None means the current one. Also waits for passages that other processes have claimed.
    """
    engine = app.catalog.engine(collection, generation)
    if not engine.record.dense_dimension:
        return 0
    return encode_all(engine, app.encoders.hybrid_encoder(engine.record), app.claims, progress, stop)


def encode_waiting(app: App, collection: str, generation: str, stop: Callable[[], bool]) -> None:
    """Encode the passages without a vector that no other process has claimed.

    Does nothing if the collection or generation no longer exists.
    """
    try:
        engine = app.catalog.engine(collection, generation)
    except NotFoundError:
        return
    if engine.record.dense_dimension:
        encode_rows_waiting(engine, app.encoders.hybrid_encoder(engine.record), app.claims, stop=stop)


def encode_queries_ahead(app: App, collection: str, texts: list[str], generation: str | None = None) -> None:
    """Encode queries in batches and cache the results in this process, for the searches that follow."""
    record = app.catalog.engine(collection, generation).record
    if record.dense_dimension:
        encoder = app.encoders.hybrid_encoder(record)
        app.encoders.put_hybrid_encoder(record, CachedQueries.of(encoder, [fold(text) for text in texts]))
