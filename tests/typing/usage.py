"""Ordinary calls, as a user of the package would write them: mypy --strict must accept this file."""

from __future__ import annotations

from pathlib import Path

from hyblink.app.application import App
from hyblink.app.bootstrap import build
from hyblink.app.core.settings import Settings
from hyblink.app.core.types.collections import CollectionSpec
from hyblink.app.core.types.documents import BulkResult
from hyblink.app.core.types.ranking import Signal
from hyblink.app.core.types.search import SearchRequest, SearchResult
from hyblink.app.operations.collections import ensure_collection


def ingest_and_search(folder: Path) -> list[tuple[str, float]]:
    app: App = build(Settings(data_dir=folder))
    ensure_collection(app, CollectionSpec("notes", dense_encoder="none"))
    written: BulkResult = app.documents.bulk("notes", [{"id": "1", "text": "hybrid search"}])
    assert not written.errors
    request = SearchRequest("search", k=3, weights={Signal.BM25: 1.0, Signal.VDR: 0.5})
    result: SearchResult = app.search.search("notes", request)
    app.close()
    return [(hit.doc_id, hit.score) for hit in result.hits]
