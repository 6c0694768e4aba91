"""A small collection whose generations are rebuilt."""

from __future__ import annotations

from collections.abc import Callable

from support.documents import random_documents
from support.encoders import FakeDense

from hyblink.app.application import App
from hyblink.app.core.types.collections import CollectionSpec
from hyblink.app.core.types.search import SearchRequest
from hyblink.app.operations.collections import ensure_collection, new_record
from hyblink.app.operations.encoding import encode_now
from hyblink.app.operations.generations import build_context, encoders_of
from hyblink.indexer.generations.build import build


def filled(make_app: Callable[..., App], folder: str = "data") -> App:
    app = make_app(folder)
    ensure_collection(app, CollectionSpec("c"))
    app.documents.bulk("c", random_documents(120, seed=8), encode=False)
    encode_now(app, "c")
    return app


def answers(app: App, name: str = "c") -> list[tuple[str, float]]:
    return [(hit.doc_id, hit.score) for hit in app.search.search(name, SearchRequest("alpha gamma", k=30)).hits]


class OtherDense(FakeDense):
    id = "dense:fake:2"

    def _vector(self, text: str):  # type: ignore[no-untyped-def]
        return super()._vector(text[::-1])


def rebuild(app: App, encoder: FakeDense | None = None, keep: int = 3) -> str:
    if encoder:
        app.encoders.add_dense(encoder)
        app.encoders.use_as_default(encoder.id)
    record = new_record(app, app.catalog.spec("c"), parent=app.catalog.current("c"))
    encoder = app.encoders.hybrid_encoder(record)
    return build(build_context(app), record, **encoders_of(app, record), keep=keep).id
