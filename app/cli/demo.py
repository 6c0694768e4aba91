"""`hyblink demo`: ingest the documentation of the running Python, and serve it with the UI on 127.0.0.1."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
import urllib.request
from contextlib import ExitStack
from typing import Any

from hyblink.app.cli.console import note, say
from hyblink.app.cli.local_server import LocalService
from hyblink.app.cli.page import free_port, start_page, wait_for
from hyblink.app.core.errors import UnavailableError
from hyblink.app.core.process import package_folder
from hyblink.app.core.types.linking import LinkProfile
from hyblink.app.engines.profile_json import link_profile_from_json
from hyblink.app.worker.local import GRACE_S, LocalWorkers

COLLECTION = "python"
KB = "python-api"
SENTENCE = "Write it with dump and read it back with json."
QUESTION = "keep only unique items but keep order"
_LINK_PROFILE = package_folder() / "app" / "demo" / "link_profile.json"
_LOOK_S = 2.0
_GRACE_S = 2.0


def link_profile() -> LinkProfile:
    """Return the link profile of the demo's knowledge base, fitted on the judged mentions of tests/demo_mentions."""
    return link_profile_from_json(json.loads(_LINK_PROFILE.read_text(encoding="utf-8")))


def _post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        loaded: dict[str, Any] = json.load(answer)
        return loaded


def run_demo(*, check: bool, port: int, ui_port: int) -> None:
    """Ingest the documents, serve the API and the UI, and wait for Ctrl-C.

    With `check`, run one search and one linking request instead of waiting, then stop.
    """
    import uvicorn

    from hyblink.app.api.application import create_api
    from hyblink.app.api.protocol import timed_protocol
    from hyblink.app.bootstrap import build
    from hyblink.app.cli.console import progress
    from hyblink.app.core.settings import Settings
    from hyblink.app.operations.ingestion import ingest_source, load_entities
    from hyblink.indexer.readers.entities.files import python_entities
    from hyblink.indexer.readers.python_package import PythonSource

    settings = Settings()
    app = build(settings)
    started = time.perf_counter()
    with progress() as bars:
        done = ingest_source(app, PythonSource("python"), COLLECTION, wait=False, progress=bars)
    say(
        f"{done.report.documents} documents of this Python's own documentation are searchable "
        f"({time.perf_counter() - started:.1f} s); vectors follow in the background"
    )
    port = free_port(port)
    api = create_api(app, host="127.0.0.1")
    http = timed_protocol(settings.api.header_timeout_s)
    server = uvicorn.Server(uvicorn.Config(api, host="127.0.0.1", port=port, log_level="warning", http=http))
    thread = threading.Thread(target=server.run, name="hyblink-api", daemon=True)
    thread.start()
    ui: subprocess.Popen[bytes] | None = None
    workers = ExitStack()
    try:
        address = f"http://127.0.0.1:{port}"
        ui_port = free_port(ui_port)
        ui = start_page(address, ui_port, HYBLINK_UI_COLLECTION=COLLECTION, HYBLINK_UI_KB=KB)
        # API and UI start while the entities are loaded.
        started = time.perf_counter()
        with progress() as bars:
            loaded = load_entities(app, KB, python_entities("python"), wait=False, progress=bars)
        if app.catalog.link_profile(KB) is None:
            app.catalog.save_link_profile(KB, link_profile())
        say(f"{loaded.entities} names of its API can be linked to ({time.perf_counter() - started:.1f} s)")
        wait_for(f"{address}/readyz")
        # What a worker had begun is taken up at the next start, so the end of a check does not wait for it.
        workers.enter_context(LocalWorkers(settings, quiet=True, grace_s=_GRACE_S if check else GRACE_S))
        workers.enter_context(LocalService(app))
        ui_address = f"http://127.0.0.1:{ui_port}"
        wait_for(f"{ui_address}/_stcore/health", ui)
        if check:
            _check(address, ui_address)
            return
        say(f"\n  search here:  {ui_address}\n  API:          {address}/docs\n\nCtrl-C stops both.")
        stop = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        _follow_encoding(app, stop)
        stop.wait()
    finally:
        workers.close()
        if ui is not None:
            ui.terminate()
            ui.wait(timeout=10)
        server.should_exit = True
        thread.join(timeout=15)
        app.close()


def _follow_encoding(app: Any, stop: threading.Event) -> None:
    """Print a line once all passages have vectors."""

    def follow() -> None:
        while not stop.wait(_LOOK_S):
            counts = app.catalog.engine(COLLECTION).store.reader().counts()
            if counts.encoded == counts.passages:
                say(f"all {counts.passages} passages of the documentation have vectors now")
                return

    threading.Thread(target=follow, daemon=True).start()


def _check(address: str, ui_address: str) -> None:
    result = _post(f"{address}/v1/search", {"query": QUESTION, "collection": COLLECTION, "k": 5, "explain": True})
    if not result["hits"]:
        raise UnavailableError("the demo's search found nothing")
    say(f"search {QUESTION!r}: generation {result['generation']}, {result['timings_ms']['total']:.0f} ms")
    for hit in result["hits"]:
        lines = [f"{s['signal']} {s['contribution']:.3f}" for s in hit["passages"][0]["signals"]]
        say(f"  {hit['rank']}. {hit['title']}  {hit['score']:.3f} = {' + '.join(lines)}")
    for leg in result["legs"]:
        if leg["error"]:
            note(f"leg {leg['signal']}: {leg['error']}")
    links = _post(f"{address}/v1/link", {"text": SENTENCE, "collection": KB, "shown": 3})["texts"][0]["links"]
    if not links:
        raise UnavailableError("the demo's linking request found no mention")
    say(f"link {SENTENCE!r}:")
    for link in links:
        names = ", ".join(f"{item['title']} {item['probability']:.2f}" for item in link["candidates"])
        say(f"  {link['mention']['text']!r} → {link['title'] or 'NIL'} ({names})")
    say(f"API {address} and UI {ui_address} answered; check passed")
