"""The structure of documents: passages end where a section ends, and know its headings and its place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from hyblink.app.application import App
from hyblink.app.core.types.documents import Section
from hyblink.app.core.types.ranking import Signal
from hyblink.app.core.types.search import SearchRequest
from hyblink.indexer.transfer import export_collection, import_collection, read_export
from tests.support.store import collection, put

_PARTS: list[tuple[list[str], str, str]] = [
    ([], "", "Before anything. "),
    (["Guide"], "#guide", "Guide\n\n"),
    (["Guide", "Install"], "#install", "Install\n\n" + "Run the program. " * 9),
    (["Guide", "Install", "Ubuntu Café"], "page 3", "Ubuntu Café\n\nUse the manager. "),
]


def guide(**more: Any) -> dict[str, Any]:
    sections, text = [], ""
    for path, place, own in _PARTS:
        sections.append({"start": len(text), "path": path, "place": place})
        text += own
    return {"id": "g", "title": "Guide", "text": text, "sections": sections, **more}


def where(app: App) -> list[tuple[tuple[str, ...], str, str]]:
    reader = app.catalog.engine("c").store.reader()
    found = reader.passages(reader.document_rows("g"))
    return [(one.path, one.place, one.text[:7]) for one in found.values()]


def found(app: App, query: str, signal: Signal = Signal.BM25) -> list[str]:
    result = app.search.search("c", SearchRequest(query, signals=(signal,)))
    return [passage.place for hit in result.hits for passage in hit.passages]


def test_passages_know_their_headings_and_place(make_app: Callable[..., App]) -> None:
    app = make_app()
    engine = collection(app)
    assert put(app, guide()) == ["created"]
    assert where(app) == [
        ((), "", "Before "),
        (("Guide", "Install"), "#install", "Guide\n\n"),  # a heading alone is no passage
        (("Guide", "Install"), "#install", "Run the"),
        (("Guide", "Install", "Ubuntu Café"), "page 3", "Ubuntu "),
    ]
    document = app.documents.get("c", "g")
    assert document.sections[3] == Section(len(document.text) - 30, ("Guide", "Install", "Ubuntu Café"), "page 3")
    (hit,) = app.search.search("c", SearchRequest("manager", signals=(Signal.BM25,))).hits
    assert (hit.passages[0].path, hit.passages[0].place) == (("Guide", "Install", "Ubuntu Café"), "page 3")
    assert put(app, guide()) == ["unchanged"]
    assert engine.check() == []


def test_headings_are_searched(make_app: Callable[..., App]) -> None:
    app = make_app()
    collection(app)
    put(app, guide())
    # "Install" stands in the path of the last passage, and not in its text.
    for signal in (Signal.BM25, Signal.VDR):
        assert found(app, "install manager", signal)[0] == "page 3", signal
        assert "page 3" in found(app, "install", signal)
    (change,) = [
        one
        for batch in app.catalog.engine("c").store.reader().texts_since(0)
        for one in batch
        if "manager" in one.content
    ]
    assert change.content == "Guide › Install › Ubuntu Café\nUbuntu Café\n\nUse the manager. "


def test_only_a_new_structure_or_text_is_indexed_again(make_app: Callable[..., App]) -> None:
    app = make_app()
    engine = collection(app)
    put(app, guide())
    before = where(app)
    assert put(app, guide(metadata={"colour": "blue"})) == ["updated"]
    assert where(app) == before
    rows = engine.store.reader().live_rows().tolist()
    moved = guide(metadata={"colour": "blue"})
    moved["sections"][3]["place"] = "page 4"
    assert put(app, moved) == ["updated"]
    assert where(app)[3][1] == "page 4"
    assert set(engine.store.reader().live_rows().tolist()).isdisjoint(rows)
    assert put(app, {key: value for key, value in moved.items() if key != "sections"}) == ["updated"]
    assert {path for path, _, _ in where(app)} == {()}
    assert engine.check() == []


def test_lines_of_plain_text_are_counted(make_app: Callable[..., App]) -> None:
    app = make_app()
    collection(app)
    text = "".join(f"Entry {number} says little.\n" for number in range(1, 41))
    put(app, {"id": "g", "text": text, "sections": [{"start": 0, "path": [], "place": "line 3"}]})
    reader = app.catalog.engine("c").store.reader()
    found = list(reader.passages(reader.document_rows("g")).values())
    assert len(found) > 5
    for passage in found:
        assert passage.place == f"line {3 + text.count(chr(10), 0, passage.start)}"


def test_structure_survives_export_and_import(make_app: Callable[..., App], tmp_path: Path) -> None:
    app = make_app()
    engine = collection(app)
    put(app, guide(), {"id": "plain", "text": "without"})
    before, document = where(app), app.documents.get("c", "g")
    export_collection(engine, app.catalog.spec("c"), tmp_path / "out")
    other = make_app("other")
    collection(other)
    manifest, _ = read_export(tmp_path / "out")
    import_collection(tmp_path / "out", manifest, other.catalog.engine("c"))
    assert where(other) == before
    assert other.documents.get("c", "g") == document
    assert other.documents.get("c", "plain").sections == ()


def test_bad_sections_are_refused_one_by_one(make_app: Callable[..., App]) -> None:
    app = make_app()
    collection(app)
    bad: list[Any] = [
        "x", {"start": 0}, [1], [{"start": 1}], [{"start": True}], [{"start": 0}, {"start": 0}],
        [{"start": 0}, {"start": 999}], [{"start": 0, "path": "x"}], [{"start": 0, "path": [1]}],
        [{"start": 0, "path": ["a"] * 33}], [{"start": 0, "place": "x" * 600}], [{"start": 0, "place": "line x"}],
        [{"start": 0, "page": 3}], [{"start": 0, "path": ["\x00"]}],
    ]  # fmt: skip
    items = app.documents.bulk("c", [{"id": f"{at}", "text": "t", "sections": s} for at, s in enumerate(bad)]).items
    assert {item.code for item in items} == {"invalid_input"}
    assert put(app, {"id": "ok", "text": "t", "sections": [{"start": 0}, {"start": 1}]}) == ["created"]


def test_names_of_files_are_searched(make_app: Callable[..., App]) -> None:
    app = make_app()
    engine = collection(app)
    budget = {
        "id": "x",
        "title": "Plan for autumn",
        "text": "We spend little. " * 12,
        "metadata": {"file": "a/budget-2024.md"},
    }
    put(app, budget, {"id": "y", "title": "budget", "text": "other", "metadata": {"file": "budget.md"}}, guide())
    for signal in (Signal.BM25, Signal.VDR):
        assert "x" in [hit.doc_id for hit in app.search.search("c", SearchRequest("2024", signals=(signal,))).hits]
    reader = engine.store.reader()
    passages = reader.passages(reader.live_rows()).values()
    assert {one.content for one in passages if one.doc_id == "y"} == {"budget\nother"}
    assert {one.content.partition("\n")[0] for one in passages if one.doc_id == "x"} == {
        "Plan for autumn (budget-2024)"
    }
    assert all(one.text in budget["text"] for one in passages if one.doc_id == "x")
    renamed = {**budget, "metadata": {"file": "a/costs.md"}}
    assert put(app, renamed) == ["updated"]
    assert found(app, "costs") != []
    assert found(app, "2024") == []
    assert engine.check() == []
