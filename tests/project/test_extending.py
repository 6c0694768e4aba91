"""docs/extending.md, run: what it adds is there at every door."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from streamlit.testing.v1 import AppTest
from support import processes

from hyblink.app.access.keys import KeyStore
from hyblink.app.api.application import create_api
from hyblink.app.api.routes.registry import ROUTERS
from hyblink.app.application import App
from hyblink.app.bootstrap import build
from hyblink.app.cli.main import cli
from hyblink.app.core.errors import InvalidInputError
from hyblink.app.core.registry import Registry
from hyblink.app.core.settings import EncodeSettings, Settings
from hyblink.app.core.types.collections import CollectionSpec
from hyblink.app.core.types.ranking import RerankRequest, Signal
from hyblink.app.core.types.search import SearchRequest
from hyblink.app.encoders.families import ENCODER_FAMILIES
from hyblink.app.operations.collections import ensure_collection
from hyblink.app.operations.encoding import encode_now
from hyblink.indexer.readers.formats import FORMATS
from hyblink.ranker.signals.definition import SignalDefinition
from hyblink.ranker.signals.registry import SIGNALS
from hyblink.training.families.registry import FAMILIES
from hyblink.training.recipes import RECIPES
from hyblink.ui.client import Client
from hyblink.ui.signals import Signals

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
REGISTRIES: tuple[Registry[Any], ...] = (SIGNALS, FORMATS, ENCODER_FAMILIES, FAMILIES, RECIPES, ROUTERS)
DOCUMENTS = [
    {"id": "a", "title": "Whales", "text": "The blue whale is the largest animal."},
    {"id": "b", "title": "Herons", "text": "A heron stands still in the water.", "metadata": {"pinned": True}},
    {"id": "c", "title": "Paint", "text": "The wall was painted blue."},
]


def modules() -> dict[str, str]:
    """The page's modules: each begins with a docstring that names its file."""
    found = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL):
        name = re.match(r'"""(\w+)\.py: ', block)
        assert name, block[:80]
        found[name[1]] = block
    assert set(found) == {"pinned", "subtitles", "overlap", "overlap_recipe", "counting"}
    return found


def printed(option: str) -> str:
    """What the page says that `--help` shows of an option."""
    (line,) = re.findall(rf"```text\n({option}.*)\n```", PAGE.read_text(encoding="utf-8"))
    return " ".join(str(line).split())


@contextmanager
def extended(folder: Path, *names: str) -> Iterator[None]:
    """Within it the modules are imported; what they registered is gone afterwards."""
    before = [list(registry) for registry in REGISTRIES]
    for name in names:
        (folder / f"{name}.py").write_text(modules()[name], encoding="utf-8")
    with ExitStack() as stack:
        stack.callback(lambda: [sys.modules.pop(name, None) for name in names])
        stack.callback(
            lambda: [
                registry.remove(name)
                for registry, old in zip(REGISTRIES, before, strict=True)
                for name in list(registry)
                if name not in old
            ]
        )
        for name in names:
            spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
            assert spec is not None
            assert spec.loader is not None
            sys.modules[name] = module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        yield


def filled(app: App) -> App:
    ensure_collection(app, CollectionSpec("c"))
    app.documents.bulk("c", DOCUMENTS, encode=False)
    encode_now(app, "c")
    return app


def transport_to(api: TestClient) -> httpx.MockTransport:
    """The way from the pages' client to an API in this process."""

    def answer(request: httpx.Request) -> httpx.Response:
        path = request.url.raw_path.decode()
        got = api.request(request.method, path, content=request.read(), headers=dict(request.headers))
        return httpx.Response(got.status_code, content=got.content, headers={"content-type": "application/json"})

    return httpx.MockTransport(answer)


def page(view: str, api: TestClient, *, of: str = "c") -> AppTest:
    """A page of the UI that talks to this API."""

    def script(view, transport, of):  # type: ignore[no-untyped-def]
        from importlib import import_module

        from hyblink.ui.client import Client

        client = Client("http://127.0.0.1", transport=transport)
        shown = import_module(f"hyblink.ui.views.{view}")
        shown.show(client, of) if view == "search" else shown.show(client)

    return AppTest.from_function(script, args=(view, transport_to(api), of), default_timeout=60)


def html_of(shown: AppTest) -> str:
    return "\n".join(str(one.proto.body) for one in shown.get("html"))


def command(tmp_path: Path, *arguments: str, extensions: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]),
        "HYBLINK_EXTENSIONS": json.dumps(extensions),
        "HYBLINK_DATA_DIR": str(tmp_path / "cli"),
        "COLUMNS": "200",
    }
    start = [sys.executable, "-m", "hyblink.app.cli.main", *arguments]
    return processes.run(start, env=environment, cwd=tmp_path)


def test_a_signal(tmp_path: Path, make_app: Callable[..., App]) -> None:
    with extended(tmp_path, "pinned"):
        app = filled(make_app())
        pinned = Signal("pinned")
        found = app.search.search("c", SearchRequest("whale", k=3, signals=(Signal.BM25, pinned)))
        lines = {hit.doc_id: {line.signal: line.raw for line in hit.passages[0].signals} for hit in found.hits}
        assert (lines["a"][pinned], lines["b"][pinned]) == (0, 1)
        assert "c" not in lines, "neither leg proposes it"
        weighed = SearchRequest("blue", k=3, signals=(Signal.BM25, pinned), weights={Signal.BM25: 0.1, pinned: 1.0})
        best = app.search.search("c", weighed).hits[0]
        assert best.doc_id == "b"
        assert sum(line.contribution for line in best.passages[0].signals) == pytest.approx(best.score)
        why = app.search.why_not("c", SearchRequest("heron", k=1, signals=(Signal.BM25, pinned)), "b")
        assert {leg.signal: leg.rank for leg in why.legs} == {Signal.BM25: 1, pinned: 1}
        with TestClient(create_api(app), base_url="http://127.0.0.1") as api:
            body = {"query": "whale", "collection": "c", "signals": ["bm25", "pinned"], "explain": True}
            answer = api.post("/v1/search", json=body).json()
            assert "pinned" in {line["signal"] for line in answer["hits"][0]["passages"][0]["signals"]}
            rows = api.get("/v1/signals").json()["signals"]
            assert '<span class="hb-dot" style="background:#64748b"></span>pinned' in Signals(rows).legend(["pinned"])
            shown = page("search", api).run()
            assert not shown.exception
            assert shown.checkbox(key="use-pinned").value is True
            shown.text_input(key="query").set_value("whale").run()
            assert not shown.exception
            assert 'style="background:#64748b"></span>pinned' in html_of(shown), "the legend"
            assert "<td>pinned</td>" in html_of(shown), "the ledger"
    refused = TestClient(create_api(app), base_url="http://127.0.0.1").post("/v1/search", json=body)
    assert refused.status_code == 400, "without the row it is an error"
    assert "pinned" in refused.text
    said = command(tmp_path, "search", "--help", extensions=["pinned"])
    assert printed("--signals") in " ".join(said.stdout.split()), said.stdout + said.stderr


def test_a_signal_that_has_nothing_to_search_is_left_out(tmp_path: Path, make_app: Callable[..., App]) -> None:
    app = filled(make_app())
    idle = Signal("idle")
    try:
        SIGNALS.add(SignalDefinition(idle, "idle", "#000000", lambda _: None, lower_bound=0.0))
        found = app.search.search("c", SearchRequest("whale", signals=(Signal.BM25, idle)))
        assert [hit.doc_id for hit in found.hits] == ["a"]
        assert [report.signal for report in found.legs] == [Signal.BM25]
        assert found.missing == (idle,), "as dense without vectors"
        assert app.search.search("c", SearchRequest("whale", signals=(idle,))).hits == ()
    finally:
        SIGNALS.remove(idle)


def test_a_format(tmp_path: Path, make_app: Callable[..., App]) -> None:
    film = "1\n00:00:01,000 --> 00:00:02,000\nThe whale is white.\n\n2\n00:00:03,000 --> 00:00:04,000\nCall me.\n"
    folder = tmp_path / "films"
    folder.mkdir()
    (folder / "moby.srt").write_text(film)
    (folder / "empty.srt").write_text("1\n00:00:01,000 --> 00:00:02,000\n")
    with extended(tmp_path, "subtitles"):
        app = make_app()
        with TestClient(create_api(app), base_url="http://127.0.0.1") as api:
            rows = {row["name"]: row for row in api.get("/v1/formats").json()["formats"]}
            assert rows["subtitles"]["suffixes"] == [".srt"]
            upload = api.post("/v1/uploads", params={"name": "moby.srt"}, content=film.encode()).json()
            job = api.post("/v1/jobs", json={"collection": "films", "upload": upload["id"]}).json()
            assert app.jobs.wait(60)  # type: ignore[union-attr]
            assert app.job_records.get(job["id"]).state == "done"
            (hit,) = app.search.search("films", SearchRequest("whale", k=1, signals=(Signal.BM25,))).hits
            assert (hit.title, hit.passages[0].text) == ("moby", "The whale is white.\nCall me.")
            shown = page("jobs", api).run()
            assert not shown.exception
            (uploader,) = shown.get("file_uploader")
            assert ".srt" in uploader.proto.type
    said = command(tmp_path, "ingest", "--help", extensions=["subtitles"])
    assert printed("--format") in " ".join(said.stdout.split()), said.stdout + said.stderr
    done = command(tmp_path, "ingest", "films", "-c", "films", "--no-dense", "--json", extensions=["subtitles"])
    assert '"created": 1' in done.stdout, done.stdout + done.stderr
    assert "empty.srt" in done.stderr + done.stdout
    assert "no subtitles in it" in done.stderr + done.stdout


def test_a_family_and_a_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = tmp_path / "rows.jsonl"
    made = [{"query": f"word{n} whale", "pos": [f"a word{n} in it"], "neg": ["nothing at all"]} for n in range(8)]
    rows.write_text("".join(json.dumps(one) + "\n" for one in made))
    model = tmp_path / "overlap"
    with extended(tmp_path, "overlap", "overlap_recipe"):
        from typer.testing import CliRunner

        monkeypatch.setenv("HYBLINK_DATA_DIR", str(tmp_path / "data"))
        options = ["--data", str(rows), "--out", str(model), "--set", "steps=60"]
        done = CliRunner().invoke(cli, ["train", "overlap_quick", *options])
        assert done.exit_code == 0, done.output
        assert json.loads((model / "weight.json").read_text())["weight"] > 1
        manifest = json.loads((model / "manifest.json").read_text())
        assert (manifest["kind"], manifest["recipe"], manifest["config"]["steps"]) == ("overlap", "overlap_quick", 60)
        settings = Settings(data_dir=tmp_path / "data", encode=EncodeSettings(cross_encoder=str(model)))
        app = build(settings)
        try:
            ensure_collection(app, CollectionSpec("c", dense_encoder="none"))
            app.documents.bulk("c", DOCUMENTS, encode=False)
            app.encoders.cross().load()
            rerank = RerankRequest(top=3, budget_ms=5000)
            request = SearchRequest("the blue whale", k=3, signals=(Signal.BM25, Signal.VDR), rerank=rerank)
            found = app.search.search("c", request)
            assert found.rerank is not None
            assert (found.rerank.scored, found.rerank.error) == (len(found.hits), "")
            raw = {
                hit.doc_id: line.raw for hit in found.hits for line in hit.passages[0].signals if line.signal == "cross"
            }
            assert (raw["a"] or 0) > (raw["c"] or 0) > 0
        finally:
            app.close()
    said = command(tmp_path, "train", "--help", extensions=["overlap", "overlap_recipe"])
    assert "overlap_quick" in said.stdout, said.stdout + said.stderr
    with pytest.raises(InvalidInputError, match="unknown recipe"):
        RECIPES.of("overlap_quick")


def test_a_route(tmp_path: Path, make_app: Callable[..., App]) -> None:
    with extended(tmp_path, "counting"):
        app = filled(make_app())
        keys = KeyStore(app.catalog.records())
        key, elsewhere = keys.create("search", "2026-01-01"), keys.create("search", "2026-01-01", ["elsewhere"])
        with TestClient(create_api(app, host="0.0.0.0"), base_url="http://search.example") as api:
            question = {"collection": "c", "word": "blue"}

            def ask(key: str | None) -> tuple[int, Any]:
                headers = {"Authorization": f"Bearer {key}"} if key else {}
                answer = api.get("/v1/counting", params=question, headers=headers)
                return answer.status_code, answer.json()

            assert ask(key) == (200, {"documents": 2})
            assert ask(None)[0] == 401
            assert ask(elsewhere)[0] == 403
            assert "/v1/counting" in api.get("/openapi.json").json()["paths"]


def test_an_extension_that_cannot_be_imported_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import nothing_of_this_name\n")
    said = command(tmp_path, "collections", extensions=["broken"])
    assert said.returncode != 0
    assert 'an extension cannot be imported; received "broken (ModuleNotFoundError' in said.stderr
    assert "Traceback" not in said.stderr
    with pytest.raises(InvalidInputError, match="not_there"):
        build(Settings(data_dir=tmp_path / "data", extensions=("not_there",)))


def test_the_client_of_the_pages_reads_both_lists(make_app: Callable[..., App]) -> None:
    with TestClient(create_api(make_app()), base_url="http://127.0.0.1") as api:
        client = Client("http://127.0.0.1", transport=transport_to(api))
        assert Signals(client.signals()).proposing == ("bm25", "vdr", "dense")
        assert [row["name"] for row in client.formats()] == list(FORMATS)
