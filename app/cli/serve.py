"""`hyblink serve` and `hyblink demo`."""

from __future__ import annotations

from typing import Annotated

import typer

from hyblink.app.cli.console import opened, reported, say
from hyblink.app.cli.supervise import restarted_after_faults

_SWITCH_S = 0.001


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on; by default the setting api.host.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; by default the setting api.port.")] = None,
    restart: Annotated[
        bool, typer.Option(help="Start again after a fault of the machine, such as a mapped file that was cut short.")
    ] = True,
) -> None:
    """Serve the HTTP API. Any address but loopback needs API keys."""
    if restart:
        restarted_after_faults()
    _serve(host, port)


def ui(
    port: Annotated[int, typer.Option(help="Port of the page; 0 chooses a free one.")] = 8501,
    api: Annotated[
        str | None, typer.Option(help="Address of a service that runs already; by default one is started here.")
    ] = None,
    collection: Annotated[str, typer.Option("--collection", "-c", help="The collection that is shown first.")] = "",
) -> None:
    """Open the page over your own collections: it serves the page, and the API for it, on 127.0.0.1."""
    with reported():
        from hyblink.app.cli.page import free_port, start_page, wait_for
        from hyblink.app.core.settings import Settings

        api_port = free_port(Settings().api.port)
        page_port = free_port(port)
        page = start_page(
            api or f"http://127.0.0.1:{api_port}",
            page_port,
            **({"HYBLINK_UI_COLLECTION": collection} if collection else {}),
        )
        try:
            wait_for(f"http://127.0.0.1:{page_port}/_stcore/health", page)
            say(f"the page: http://127.0.0.1:{page_port}   (Ctrl-C stops it)")
            if api:
                page.wait()
            else:
                _serve("127.0.0.1", api_port)
        finally:
            page.terminate()
            page.wait(timeout=10)


def _serve(host: str | None, port: int | None) -> None:
    with reported(), opened() as app:
        import signal
        import sys

        import uvicorn

        from hyblink.app.api.application import create_api
        from hyblink.app.api.protocol import timed_protocol
        from hyblink.app.cli.local_server import LocalService
        from hyblink.app.core.logs import set_up
        from hyblink.app.worker.local import LocalWorkers

        # Threads of searches hold the interpreter for so long before health and new requests get a turn.
        sys.setswitchinterval(_SWITCH_S)
        address = host or app.settings.api.host
        set_up(app.settings.log_level, app.settings.log_format)
        api = create_api(app, host=address)
        # uvicorn raises the signal again after its shutdown. Exit normally then, so that the workers are stopped.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        with LocalWorkers(app.settings), LocalService(app):
            uvicorn.run(
                api,
                host=address,
                port=app.settings.api.port if port is None else port,
                log_config=None,
                http=timed_protocol(app.settings.api.header_timeout_s),
                timeout_graceful_shutdown=10,
            )


def demo(
    check: Annotated[
        bool, typer.Option("--check", help="Run one search and one linking request through the API, then exit.")
    ] = False,
    port: Annotated[int, typer.Option(help="Port of the API; 0 chooses a free one.")] = 8080,
    ui_port: Annotated[int, typer.Option(help="Port of the UI; 0 chooses a free one.")] = 8501,
) -> None:
    """Ingest the documentation of the running Python, then serve the API and the UI on 127.0.0.1."""
    with reported():
        from hyblink.app.cli.demo import run_demo

        run_demo(check=check, port=port, ui_port=ui_port)
