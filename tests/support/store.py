"""Helpers shared by the store tests."""

from __future__ import annotations

from typing import Any

from hyblink.app.application import App
from hyblink.app.core.filters import parse_filter
from hyblink.app.core.ports.engine import Engine
from hyblink.app.core.ports.store import StoreReader
from hyblink.app.core.types.collections import CollectionSpec
from hyblink.app.operations.collections import ensure_collection


def collection(app: App, name: str = "c") -> Engine:
    """Create a collection with short passages if needed; returns its engine."""
    ensure_collection(app, CollectionSpec(name, chunk_chars=120, chunk_overlap_chars=20))
    return app.catalog.engine(name)


def put(app: App, *documents: dict[str, Any], name: str = "c") -> list[str]:
    """Upsert documents without encoding; returns the status of each."""
    return [item.status for item in app.documents.bulk(name, list(documents), encode=False).items]


def seen(reader: StoreReader) -> dict[str, Any]:
    """Everything that a reader returns, as a dict that can be compared."""
    rows = reader.live_rows()
    passages = reader.passages(rows)
    found, vectors = reader.vectors(rows)
    texts = {one.row: (one.doc_id, one.content) for batch in reader.texts_since(0) for one in batch}
    assert texts == {row: (one.doc_id, one.content) for row, one in passages.items()}
    return {
        "change": reader.change,
        "counts": reader.counts(),
        "passages": passages,
        "documents": {one.document.id: (one.document, one.windows, one.content_hash) for one in reader.export()},
        "vectors": dict(zip(found.tolist(), vectors.tolist(), strict=True)),
        "unencoded": reader.unencoded(10_000).tolist(),
        "texts": texts,
        "blue": reader.select(parse_filter({"term": {"colour": "blue"}})).rows().tolist(),
    }


BLUE = {"id": "a", "title": "Sky", "text": "the sky is blue " * 20, "metadata": {"colour": "blue", "size": 1}}


RED = {"id": "b", "text": "roses are red", "metadata": {"colour": "red"}}
