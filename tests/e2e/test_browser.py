"""The search page in a real headless Chromium, against a real API and a real Streamlit."""

from __future__ import annotations

import json
import os
import re
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.browser import ROOT, opened_page, retrain, serving

from hyblink.app.access.keys import KeyStore
from hyblink.app.bootstrap import build
from hyblink.app.core.settings import Settings
from hyblink.app.core.types.collections import CollectionSpec
from hyblink.app.linking.knowledge_base import entity_spec
from hyblink.app.operations.collections import ensure_collection
from hyblink.app.operations.encoding import encode_now
from hyblink.indexer.readers.entities.files import python_entities
from hyblink.indexer.readers.python_package import PythonSource

pytestmark = pytest.mark.services
PICTURE = "![here](http://elsewhere.invalid/seen.png) **zebra** [here](http://elsewhere.invalid) :red[zebra] $x$"
EVIL = "<img src=x onerror=\"document.title='pwned'\"><script>document.title='pwned'</script>"


@pytest.fixture(scope="module")
def ui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    data = tmp_path_factory.mktemp("ui")
    app = build(Settings(data_dir=data))
    ensure_collection(app, CollectionSpec("python"))
    documents = [
        i.document for name in ("json", "csv", "textwrap", "wsgiref") for i in PythonSource(name).items() if i.document
    ]
    app.documents.upsert("python", documents, encode=False)
    app.documents.bulk(
        "python",
        [
            {
                "id": "evil",
                "title": f"zebra {EVIL}",
                "text": f"zebra {EVIL}",
                "metadata": {"kind": EVIL, "linked_entities": ["evil", "json:json.dump", "gone"]},
            }
        ],
        encode=False,
    )
    encode_now(app, "python")
    ensure_collection(app, entity_spec("api"))
    app.entities.bulk("api", list(python_entities("json")), encode=False)
    app.entities.bulk("api", [{"id": "evil", "title": "zebra", "description": EVIL, "kind": EVIL}], encode=False)
    app.entities.bulk("api", [{"id": "picture", "title": PICTURE, "description": PICTURE}], encode=False)
    encode_now(app, "api")
    app.close()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HYBLINK_")}
    environment |= {"PYTHONPATH": str(ROOT), "HYBLINK_DATA_DIR": str(data)}
    with serving(environment, data, "python") as (api_url, ui_url):
        os.environ["HYBLINK_TEST_API"] = api_url
        yield ui_url


@pytest.fixture(scope="module")
def page(ui: str, tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    with opened_page(tmp_path_factory.mktemp("profile"), ui) as opened:
        yield opened


def ask(page, query: str) -> None:  # type: ignore[no-untyped-def]
    box = page.get_by_label("Query")
    box.fill(query)
    box.press("Enter")
    page.locator(f""".hb-done[data-state^='["{query}",'][data-state$='#0']""").wait_for(state="attached")


def titles(page) -> list[str]:  # type: ignore[no-untyped-def]
    return [text for text in page.locator("b").all_inner_texts() if re.match(r"\d+\. ", text)]


def wait_for_titles(page, test, seconds: float = 30.0) -> list[str]:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = titles(page)
        if test(found):
            return found
        time.sleep(0.2)
    pytest.fail(f"the page shows {titles(page)}")


def test_a_question_finds_its_answer_with_reasons(page) -> None:  # type: ignore[no-untyped-def]
    ask(page, "write an object into a file as json")
    found = wait_for_titles(page, lambda t: len(t) == 10)
    assert any("json.dump" in title for title in found[:3])
    bars = page.locator(".hb-bar").first.locator("span")
    assert bars.count() == 3
    page.get_by_text(re.compile(r"Why\? -?\d")).first.click()
    ledger = page.locator(".hb-ledger").first
    ledger.wait_for(state="visible")
    cells = [float(row.locator("td").last.inner_text()) for row in ledger.locator("tr").all()[1:]]
    assert sum(cells[:-1]) == pytest.approx(cells[-1], abs=2e-4)
    assert page.locator(".hb-token").count() > 0
    page.locator(".hb-text mark").first.wait_for(state="attached")
    if os.environ.get("HYBLINK_SCREENSHOT"):
        page.screenshot(path=os.environ["HYBLINK_SCREENSHOT"])


def test_a_thumb_becomes_a_judgement_and_an_opened_document_a_click(page, ui: str) -> None:  # type: ignore[no-untyped-def]
    ask(page, "parse a json document")
    wait_for_titles(page, lambda t: len(t) == 10)
    page.get_by_test_id(re.compile("^stFeedbackButton")).filter(has_text="thumb_up").first.click()
    page.get_by_text("Judged.").wait_for()
    page.get_by_text("Whole document").nth(1).click()
    page.wait_for_timeout(1500)
    api = os.environ["HYBLINK_TEST_API"]
    with urllib.request.urlopen(f"{api}/v1/judgements?collection=python") as answer:
        found = json.load(answer)
    assert "parse a json document" in found["queries"].values()
    assert [grade for grades in found["qrels"].values() for grade in grades.values()] == [3]
    request = urllib.request.Request(
        f"{api}/v1/admin/judgements-from-clicks?collection=python&min_views=1", method="POST"
    )
    with urllib.request.urlopen(request) as answer:
        found = json.load(answer)
    assert found["clicks"] == 1
    assert found["searches"] >= 1


def test_re_ranking_shows_its_own_share_of_the_score(page) -> None:  # type: ignore[no-untyped-def]
    choice = page.get_by_label("Re-rank")
    choice.click()
    page.get_by_role("option", name="yes", exact=True).click()
    reranked = page.get_by_text(re.compile(r"[1-9]\d* documents re-ranked in \d+ ms"))
    told = page.get_by_text(re.compile(r"\d+ documents re-ranked in \d+ ms|Not re-ranked: "))
    for at in range(60):  # the budget of a search counts while other processes take the CPUs
        ask(page, f"how do I read a csv file of {at} rows")
        told.first.wait_for()
        if reranked.count():
            break
        time.sleep(1)
    assert reranked.count() == 1
    assert "re-ranker" in page.locator(".hb-legend").first.inner_text().lower()
    choice.click()
    page.get_by_role("option", name="as the server is set", exact=True).click()
    ask(page, "how do I read a csv file")
    reranked.wait_for(state="detached")


def test_pages_do_not_repeat(page) -> None:  # type: ignore[no-untyped-def]
    ask(page, "json")
    first = wait_for_titles(page, lambda t: len(t) == 10 and t[0].startswith("1. "))
    page.wait_for_timeout(1000)  # a click while Streamlit still redraws is lost
    page.get_by_role("button", name="Next →").click()
    page.locator(".hb-done[data-state$='#1']").wait_for(state="attached")
    second = wait_for_titles(page, lambda t: bool(t) and t[0].startswith("11. "))
    assert not {t.split(". ", 1)[1] for t in first} & {t.split(". ", 1)[1] for t in second}
    page.wait_for_timeout(1000)
    page.get_by_role("button", name="← Previous").click()
    page.locator(".hb-done[data-state$='#0']").wait_for(state="attached")
    assert wait_for_titles(page, lambda t: bool(t) and t[0].startswith("1. ")) == first


def test_filters_narrow_the_result(page) -> None:  # type: ignore[no-untyped-def]
    ask(page, "json")
    wait_for_titles(page, lambda t: len(t) == 10)
    box = page.get_by_label("Only kind")
    box.fill("class")
    box.press("Enter")
    page.locator(".hb-done[data-state*='class']").wait_for(state="attached")
    found = wait_for_titles(page, lambda t: 0 < len(t) <= 10 and not any("json.dump" in x for x in t))
    assert any("JSONDecoder" in title or "JSONEncoder" in title for title in found)
    box.fill("")
    box.press("Enter")
    page.locator(".hb-done:not([data-state*='class'])").wait_for(state="attached")
    wait_for_titles(page, lambda t: "1. json" in t)


def test_a_name_that_was_made_to_point_here_gets_nothing(page, ui: str) -> None:  # type: ignore[no-untyped-def]
    """DNS rebinding: the page of another site, whose name leads to this machine."""
    other = page.context.new_page()
    other.goto(ui.replace("127.0.0.1", "evil.example"))
    other.get_by_text("This page does not answer to the name 'evil.example").wait_for()
    assert other.get_by_label("Query").count() == 0
    other.close()


def test_the_whole_document_opens(page) -> None:  # type: ignore[no-untyped-def]
    ask(page, "json.dump skipkeys")
    wait_for_titles(page, lambda t: bool(t))
    before = page.locator(".hb-text").count()
    page.get_by_text("Whole document").first.click()
    page.wait_for_function(f"() => document.querySelectorAll('.hb-text').length === {before + 1}")


def test_why_a_document_is_not_here(page) -> None:  # type: ignore[no-untyped-def]
    ask(page, "json")
    page.get_by_text("Why is a document not here?").click()
    box = page.get_by_label("Document id")
    box.fill("wsgiref:wsgiref.util.FileWrapper")
    box.press("Enter")
    page.get_by_text(re.compile(r"stands? at rank \d+|would stand at rank \d+")).first.wait_for()
    box.fill("no such")
    box.press("Enter")
    page.get_by_text("no such document").wait_for()


def test_documents_cannot_run_script(page) -> None:  # type: ignore[no-untyped-def]
    ask(page, "zebra")
    wait_for_titles(page, lambda t: any("zebra" in x for x in t))
    assert page.locator(".hb-text img, .hb-text script").count() == 0
    assert "<script>" in page.locator(".hb-text").first.inner_text()
    assert page.title() != "pwned"


def test_a_bad_filter_is_explained(page) -> None:  # type: ignore[no-untyped-def]
    ask(page, "json")
    box = page.get_by_label("Filter (JSON)")
    box.fill('{"like": {"a": "b"}}')
    box.press("Control+Enter")
    page.get_by_text(re.compile("unknown filter")).wait_for()
    box.fill("")
    box.press("Control+Enter")
    wait_for_titles(page, lambda t: len(t) == 10)


def test_an_entity_has_a_page_with_its_neighbours(page, ui: str) -> None:  # type: ignore[no-untyped-def]
    tab = page.context.new_page()
    tab.goto(f"{ui}/entity")
    box = tab.get_by_role("textbox", name="Find an entity")
    box.fill("zebra")
    box.press("Enter")
    found = tab.get_by_role("link", name="zebra", exact=True)
    found.wait_for()
    found.click()
    tab.locator(".hb-done[data-state='evil']").wait_for(state="attached")
    assert EVIL in tab.locator(".hb-text").first.inner_text()
    tab.get_by_text("In 1 documents of python").wait_for()
    neighbour = tab.get_by_role("link", name="json.dump", exact=True)
    neighbour.click()
    tab.locator(".hb-done[data-state='json:json.dump']").wait_for(state="attached")
    assert tab.title() != "pwned"
    tab.goto(f"{ui}/entity?kb=api&id=nothing")
    tab.get_by_text("no such").wait_for()
    tab.close()


def test_markdown_in_titles_stays_text_and_fetches_nothing(page, ui: str) -> None:  # type: ignore[no-untyped-def]
    tab = page.context.new_page()
    asked: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(f"{ui}/entity?kb=api&id=picture")
    tab.locator(".hb-done[data-state='picture']").wait_for(state="attached")
    assert PICTURE in tab.locator("h1").first.inner_text()
    assert tab.locator("h1 img, h1 a, h1 strong").count() == 0
    assert any("entity" in url for url in asked)
    assert not any("elsewhere.invalid" in url for url in asked)
    tab.close()


def test_a_text_is_linked_with_reasons_and_exported(page, ui: str) -> None:  # type: ignore[no-untyped-def]
    tab = page.context.new_page()
    tab.goto(f"{ui}/linking")
    tab.get_by_text("Own threshold").click()
    slider = tab.get_by_role("slider", name="Links below it become NIL")
    slider.wait_for()

    def state(part: str) -> None:
        tab.locator(f""".hb-done[data-state*='{part}']""").wait_for(state="attached")

    slider.press("Home")
    box = tab.get_by_role("textbox", name="Text", exact=True)
    box.fill("Write it with json.dump, then a zebra.")
    box.press("Control+Enter")
    state('"threshold": 0.0')
    mentions = tab.locator(".hb-linked a")
    assert mentions.first.inner_text().startswith("json.dump")
    assert mentions.count() == 2
    assert tab.locator(".hb-linked a.nil").count() == 0
    mentions.first.click()
    assert tab.url.endswith("#mention-0")
    tab.get_by_text(re.compile("json.dump → json.dump")).click()
    ledger = tab.locator(".hb-ledger").first
    ledger.wait_for(state="visible")
    cells = [float(row.locator("td").last.inner_text()) for row in ledger.locator("tr").all()[1:]]
    assert sum(cells[:-1]) == pytest.approx(cells[-1], abs=3e-4)
    tab.locator("a", has_text=re.compile("^json.dump$")).first.wait_for()
    with tab.expect_download() as download:
        tab.get_by_role("button", name="Export as NIF").click()
    turtle = Path(download.value.path()).read_text()
    assert 'nif:anchorOf "json.dump"' in turtle
    assert "<urn:hyblink:api:json%3Ajson.dump>" in turtle
    assert tab.title() != "pwned"
    tab.get_by_role("combobox", name="Evidence of documents").click()
    tab.get_by_role("option", name="python", exact=True).click()
    state('"evidence": {"collection": "python"}')
    assert tab.locator(".hb-linked a").count() == 2
    slider.press("End")
    state('"threshold": 1.0')
    tab.locator(".hb-linked a.nil").first.wait_for()
    # Nothing of the knowledge base is called any of this; the span head finds it.
    box.fill("Type the command into the shell and the program starts.")
    box.press("Control+Enter")
    state("Type the command")
    tab.get_by_text("No mention found.").wait_for()
    tab.get_by_role("combobox", name="Mentions found by").click()
    tab.get_by_role("option", name="span head (ELQ)", exact=True).click()
    state('"detectors": ["elq"]')
    assert any(found.startswith("shell") for found in tab.locator(".hb-linked a.nil").all_inner_texts())
    if os.environ.get("HYBLINK_SCREENSHOT"):
        slider.press("Home")
        state('"threshold": 0.0')
        tab.screenshot(path=os.environ["HYBLINK_SCREENSHOT"].replace(".png", "-linking.png"))
    tab.close()


def test_a_file_is_ingested_from_the_page(page, ui: str) -> None:  # type: ignore[no-untyped-def]
    """The service's own worker, started with it, reads the upload; what it rejects is shown, and cannot run script."""
    tab = page.context.new_page()
    tab.goto(f"{ui}/ingestion")
    rows = [f'{{"id": "p{n}", "title": "penguin {n}", "text": "penguins walk {n} miles"}}' for n in range(40)]
    tab.locator("input[type=file]").set_input_files(
        {"name": "birds.jsonl", "mimeType": "application/json", "buffer": "\n".join([*rows, EVIL]).encode()}
    )
    tab.get_by_text("birds.jsonl").wait_for()
    box = tab.get_by_role("textbox", name="Into the collection")
    box.fill("birds")
    box.press("Tab")
    tab.get_by_role("button", name="Ingest", exact=True).click()
    tab.locator(".hb-job[data-state='done']").wait_for(timeout=90_000)
    line = tab.locator(".hb-job").first.inner_text()
    assert "41 rows" in line
    assert "40 created, 1 rejected" in line
    tab.get_by_text(re.compile(r"\d+ workers")).wait_for()
    tab.get_by_text("1 rows rejected").click()
    tab.get_by_text("birds.jsonl:41").wait_for()
    assert tab.title() != "pwned"
    if os.environ.get("HYBLINK_SCREENSHOT"):
        tab.screenshot(path=os.environ["HYBLINK_SCREENSHOT"].replace(".png", "-ingestion.png"))
    tab.close()
    other = page.context.new_page()
    other.goto(ui)
    other.get_by_role("combobox", name="Collection").click()
    other.get_by_role("option", name="birds", exact=True).click()
    ask(other, "penguin 7")
    assert any("penguin 7" in title for title in wait_for_titles(other, lambda t: bool(t)))
    other.close()


def publish(tab, collection: str, generation: str) -> None:  # type: ignore[no-untyped-def]
    tab.locator(f".st-key-publish-{collection}-{generation} button:enabled").click()


def test_a_generation_is_built_and_published_from_the_page(page, ui: str) -> None:  # type: ignore[no-untyped-def]
    tab = page.context.new_page()
    tab.goto(f"{ui}/administration")
    tab.get_by_role("combobox", name="Collection").click()
    tab.get_by_role("option", name="birds", exact=True).click()
    tab.locator(".hb-generation[data-state='g000001!']").wait_for()
    tab.get_by_role("textbox", name="Note").fill(f"try {EVIL}")
    tab.get_by_role("button", name="Build the next one").click()
    tab.locator(".hb-generation[data-state='g000002!']").wait_for(timeout=120_000)
    assert tab.locator(".hb-generation img, .hb-generation script").count() == 0
    publish(tab, "birds", "g000001")
    tab.locator(".hb-generation[data-state='g000001!']").wait_for()
    assert tab.title() != "pwned"
    if os.environ.get("HYBLINK_SCREENSHOT"):
        tab.screenshot(path=os.environ["HYBLINK_SCREENSHOT"].replace(".png", "-administration.png"))
    tab.close()


def test_an_encoder_is_trained_anew_approved_and_taken_back(page, ui: str) -> None:  # type: ignore[no-untyped-def]
    """The service's own worker does it; the stages and the gate's figures are shown."""
    tab = page.context.new_page()
    tab.goto(f"{ui}/administration")
    gate = {
        "Judged_queries_may_lose": "1", "Held-out_questions_gain_more_than": "-1", "Least_overlap_of_rankings": "0",
    }  # fmt: skip
    line = retrain(tab, steps=10, **gate)
    tab.locator(".hb-retraining[data-state='waiting']").wait_for(timeout=180_000)
    assert "10 of 10" in line.inner_text()
    assert line.locator("li[data-passed='true']").count() == 3, "nothing is judged"
    if os.environ.get("HYBLINK_SCREENSHOT"):
        tab.screenshot(path=os.environ["HYBLINK_SCREENSHOT"].replace(".png", "-retraining.png"), full_page=True)
    tab.locator(".hb-generation[data-state='g000001!']").wait_for()
    tab.get_by_role("button", name="Approve").click()
    tab.locator(".hb-retraining[data-state='done']").wait_for(timeout=60_000)
    tab.locator(".hb-generation[data-state='g000002!']").wait_for(timeout=30_000)
    publish(tab, "python", "g000001")
    tab.locator(".hb-generation[data-state='g000001!']").wait_for(timeout=30_000)
    tab.close()


def test_who_signs_in_sees_what_the_key_allows_and_no_other_session_does(tmp_path: Path, page) -> None:  # type: ignore[no-untyped-def]
    app = build(Settings(data_dir=tmp_path))
    for name in ("mine", "theirs"):
        ensure_collection(app, CollectionSpec(name, dense_encoder="none"))
        app.documents.bulk(name, [{"id": name, "title": f"{name} penguin", "text": "penguin"}], encode=False)
    keys = KeyStore(app.catalog.records())
    mine, theirs = keys.create("search", "now", ["mine"]), keys.create("ingest", "now", ["theirs"])
    app.close()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HYBLINK_")}
    environment |= {
        "PYTHONPATH": str(ROOT), "HYBLINK_DATA_DIR": str(tmp_path), "HYBLINK_API__OPEN_ON_LOOPBACK": "false",
        "HYBLINK_JOBS__WORKERS": "0",
    }  # fmt: skip
    with serving(environment, tmp_path, "mine") as (_, ui_url):
        first, second = page.context.new_page(), page.context.new_page()
        for tab in (first, second):
            tab.goto(ui_url)
            tab.get_by_label("API key").wait_for()
            assert tab.get_by_role("link", name="Search").count() == 0
        first.get_by_label("API key").fill("hyb_00000000_wrong")
        first.get_by_role("button", name="Sign in").click()
        first.get_by_text("the API key is not known").wait_for()
        for tab, key in ((first, mine), (second, theirs)):
            tab.get_by_label("API key").fill(key)
            tab.get_by_role("button", name="Sign in").click()
            tab.get_by_text("Signed in: ").wait_for()
        for tab, name in ((first, "mine"), (second, "theirs")):
            ask(tab, "penguin")
            assert wait_for_titles(tab, bool) == [f"1. {name} penguin"]
        assert first.get_by_role("link", name="Ingestion").count() == 0
        assert second.get_by_role("link", name="Ingestion").count() == 1
        for tab, key in ((first, mine), (second, theirs)):
            kept = tab.evaluate(
                "JSON.stringify([document.cookie, {...localStorage}, {...sessionStorage}, location.href])"
            )
            assert key.split("_", 2)[2] not in kept + tab.content()
        second.get_by_role("button", name="Sign out").click()
        second.get_by_label("API key").wait_for()
        ask(first, "penguin")
        third = page.context.new_page()
        third.goto(ui_url)
        third.get_by_label("API key").wait_for()
        for tab in (first, second, third):
            tab.close()
