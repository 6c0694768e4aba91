"""Inputs as people have them: what must be readable, found, refused, or said. See `tests/data/cases`.

`expected.json` of each case holds `ingest` (`.`: every file of the folder) or `runs`; counts, titles, texts and
metadata by id or file; pieces of texts; what must be skipped or rejected with which words; and searches.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hyblink.app.application import App
from hyblink.app.core.filters import parse_filter
from hyblink.app.core.types.documents import Document, Passage
from hyblink.app.core.types.ranking import Signal
from hyblink.app.core.types.search import SearchRequest
from hyblink.app.operations.ingestion import Ingested, ingest_source, load_entities
from hyblink.app.operations.sources import named
from hyblink.indexer.readers.entities.files import read_entities
from hyblink.indexer.readers.files import FileSource

CASES = Path(__file__).parents[1] / "data" / "cases"
NAMES = sorted(
    path.parent.name
    for path in CASES.glob("*/expected.json")
    if {"ingest", "runs"} & set(json.loads(path.read_text())) and path.parent.name != "knowledge-base"
)


def folded(text: str) -> str:
    return " ".join(text.replace("|", " ").split())


class Run:
    """One `hyblink ingest`, and what came of it."""

    def __init__(self, app: App, collection: str, path: Path, but: str = "") -> None:
        self.app, self.collection = app, collection
        self.parts: list[Ingested] = []
        paths = [one for one in sorted(path.iterdir()) if one.name != "expected.json"] if but else [path]
        for one in paths:
            source = FileSource(one, prefix=named(app, collection, one).prefix)
            self.parts.append(ingest_source(app, source, collection, wait=False))
        store = app.catalog.engine(collection).store.reader()
        self.documents: dict[str, Document] = {item.document.id: item.document for item in store.export()}

    def of(self, name: str) -> Document:
        """The document with this id, or of this file."""
        if name in self.documents:
            return self.documents[name]
        found = [one for one in self.documents.values() if one.metadata.get("file") == name or one.id == f"{name}:1"]
        assert len(found) == 1, (name, sorted(self.documents))
        return found[0]

    def passages(self, name: str) -> list[Passage]:
        """The passages of a document or file."""
        reader = self.app.catalog.engine(self.collection).store.reader()
        return list(reader.passages(reader.document_rows(self.of(name).id)).values())

    def total(self, field: str) -> int:
        return sum(getattr(part.report, field) for part in self.parts)

    def said(self, field: str) -> str:
        return "\n".join(text for part in self.parts for text in getattr(part.report, field))


def look(run: Run, expected: dict[str, Any]) -> None:
    """Compare a run with what is expected of it."""
    documents = run.documents
    if "documents" in expected:
        assert len(documents) == expected["documents"], sorted(documents)
    if "rejected" in expected and isinstance(expected["rejected"], int):
        assert run.total("rejected") == expected["rejected"], run.said("rejects")
    elif "rejected" in expected:
        for name, words in expected["rejected"].items():
            (line,) = [line for line in run.said("rejects").splitlines() if line.startswith(f"{name}:")]
            assert words in line
    for name, words in expected.get("skipped", {}).items():
        (line,) = [line for line in run.said("skipped").splitlines() if line.startswith(f"{name}:")]
        assert words.split(";")[0] in line
    for name in expected.get("ids", []) + expected.get("ids_include", []):
        assert name in documents
    titles = expected.get("titles", {})
    if isinstance(titles, list):
        assert sorted(one.title for one in documents.values()) == sorted(titles)
    else:
        for name, title in titles.items():
            assert run.of(name).title == title
    for name, text in expected.get("texts", {}).items():
        assert run.of(name).text == text
    for name, pieces in expected.get("texts_contain", {}).items():
        for piece in [pieces] if isinstance(pieces, str) else pieces:
            assert folded(piece) in folded(run.of(name).text)
    for name, pieces in expected.get("not_in_text", {}).items():
        for piece in [pieces] if isinstance(pieces, str) else pieces:
            assert folded(piece) not in folded(run.of(name).text), piece
    for name, metadata in expected.get("metadata", {}).items():
        found = run.of(name).metadata
        assert {key: found.get(key) for key in metadata} == metadata
    for name, keys in expected.get("absent", {}).items():
        assert not set(keys) & set(run.of(name).metadata)
    for name in expected.get("read", []):
        run.of(name)
    for one in expected.get("filters", []):
        assert passing(run, one["filter"]) == sorted(one["ids"]), one
    for name, words in expected.get("words_found", {}).items():
        for word in words:
            assert run.of(name).id in [hit.doc_id for hit in search(run, word)], word
    for name, headings in expected.get("sections", {}).items():
        own = [passage.path for passage in run.passages(name)]
        assert all(any(heading in path for path in own) for heading in headings), own
    for name, pages in expected.get("pages", {}).items():
        for word, page in pages.items():
            hit = next(hit for hit in search(run, word) if hit.doc_id == run.of(name).id)
            assert hit.passages[0].place == f"page {page}"
    for one in expected.get("find", []):
        hits = search(run, one["query"])
        if "first" in one:
            assert hits[0].doc_id == run.of(one["first"]).id
        if "title" in one:
            assert documents[hits[0].doc_id].title == one["title"]
    if "says" in expected:
        assert "guessed" in run.said("notes")
        assert "--text-column" in run.said("notes")


def search(run: Run, query: str) -> Any:
    request = SearchRequest(query, k=10, signals=(Signal.BM25,))
    return run.app.search.search(run.collection, request).hits


def passing(run: Run, tree: dict[str, Any]) -> list[str]:
    from hyblink.app.core.filters import matches

    return sorted(one.id for one in run.documents.values() if matches(parse_filter(tree), one.metadata))


@pytest.mark.parametrize("name", NAMES)
def test_case(name: str, make_app: Callable[..., App]) -> None:
    folder = CASES / name
    expected = json.loads((folder / "expected.json").read_text())
    app = make_app()
    runs = expected.get("runs", [expected])
    together = "documents" in expected
    last = None
    for number, one in enumerate(runs):
        collection = "c" if together else f"c{number}"
        everything = one["ingest"] == "."
        last = Run(app, collection, folder if everything else folder / one["ingest"], but="expected.json" * everything)
        look(last, one)
    if last is not None and "runs" in expected:
        look(last, {key: value for key, value in expected.items() if key != "runs"})
    if expected.get("every_file_accounted"):
        assert last is not None
        files = sum(path.is_file() for path in (folder / expected["ingest"]).rglob("*"))
        assert sum(last.total(f"files_{what}") for what in ("read", "skipped", "rejected")) == files


def test_knowledge_base(make_app: Callable[..., App]) -> None:
    folder = CASES / "knowledge-base"
    app = make_app()
    for number, one in enumerate(json.loads((folder / "expected.json").read_text())["runs"]):
        kb = f"kb{number}"
        loaded = load_entities(app, kb, read_entities(folder / one["kb_load"]), wait=False)
        assert loaded.rejects == []
        assert loaded.entities == one["entities"]
        for ident, aliases in one.get("aliases", {}).items():
            assert list(app.entities.get(kb, ident).aliases) == aliases
        for ident, metadata in one.get("metadata", {}).items():
            found = app.entities.get(kb, ident).metadata
            assert {key: found.get(key) for key in metadata} == metadata
