"""`hyblink worker`."""

from __future__ import annotations

import os
import signal
import threading
from typing import Annotated

import typer

from hyblink.app.cli.console import reported


def worker(
    queues: Annotated[
        str, typer.Option(help="Queues to take tasks from, comma-separated: ingest, encode, train, maintenance.")
    ] = "ingest,encode,train,maintenance",
    concurrency: Annotated[
        int, typer.Option(min=1, max=64, help="Number of worker processes; each loads its own models.")
    ] = 1,
    device: Annotated[
        str | None,
        typer.Option(
            envvar="HYBLINK_DEVICE",
            help="Device of the models: cpu, cuda or cuda:N; by default the setting. Start one worker for each GPU.",
        ),
    ] = None,
    beat: Annotated[
        bool, typer.Option("--beat", help="Also send the periodic tasks; exactly one of all workers should do so.")
    ] = False,
    pool: Annotated[str, typer.Option(help="Celery's pool: prefork, or solo for a single process.")] = "prefork",
    until_eof: Annotated[bool, typer.Option("--until-eof", hidden=True)] = False,
) -> None:
    """Run a Celery worker that works on queued tasks until it is stopped."""
    with reported():
        from hyblink.app.core.errors import InvalidInputError
        from hyblink.app.core.logs import set_up
        from hyblink.app.core.settings import Settings
        from hyblink.app.jobs.celery_jobs import QUEUES, uses_celery

        if device is not None:
            os.environ["HYBLINK_ENCODE__DEVICE"] = device
        settings = Settings()
        set_up(settings.log_level, settings.log_format)
        wanted = [part.strip() for part in queues.split(",")]
        unknown = sorted(set(wanted) - set(QUEUES))
        if unknown:
            raise InvalidInputError("unknown queue", received=unknown, expected=", ".join(QUEUES))
        if pool not in {"prefork", "solo"}:
            raise InvalidInputError("unknown pool", received=pool, expected="prefork or solo")
        if not uses_celery(settings):
            raise InvalidInputError("no broker is configured", received="jobs.broker none", expected="a broker")
        from hyblink.app.worker.run import run_worker

        if until_eof:
            threading.Thread(target=_end_with_stdin, daemon=True).start()
        raise typer.Exit(run_worker(settings, wanted, concurrency=concurrency, beat=beat, pool=pool))


def _end_with_stdin() -> None:
    """Terminate this process when standard input closes, which happens when its parent process ends."""
    while os.read(0, 4096):  # not sys.stdin: processes forked meanwhile would inherit its lock as held
        pass
    os.kill(os.getpid(), signal.SIGTERM)
