"""`hyblink worker` and `hyblink jobs`."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Self

import typer

from hyblink.app.cli.console import audited, emit, note, opened, parse_pairs, reported, say
from hyblink.app.core.process import module_command, module_environment
from hyblink.app.operations.jobs import cancel_job, start_ingestion
from hyblink.app.operations.jobs import replay as replay_of
from hyblink.app.operations.retraining import schedule_retraining, start_retraining

if TYPE_CHECKING:
    from hyblink.app.core.settings import Settings
    from hyblink.app.jobs.job import Job

log = logging.getLogger(__name__)
jobs_cli = typer.Typer(help="Background jobs: begin, list, cancel, resume; dead letters.", no_args_is_help=True)
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def worker(
    queues: Annotated[
        str, typer.Option(help="What it works on, joined by commas: ingest, encode, train, maintenance.")
    ] = "ingest,encode,train,maintenance",
    concurrency: Annotated[int, typer.Option(min=1, max=64, help="Processes; each loads its own models.")] = 1,
    device: Annotated[
        str | None, typer.Option(envvar="HYBLINK_DEVICE", help="cpu, cuda, cuda:N; one worker for each GPU.")
    ] = None,
    beat: Annotated[bool, typer.Option("--beat", help="Send periodic tasks too; one worker of all should.")] = False,
    pool: Annotated[str, typer.Option(help="Celery's pool: prefork, or solo for one process.")] = "prefork",
    until_eof: Annotated[bool, typer.Option("--until-eof", hidden=True)] = False,
) -> None:
    """Work on queued tasks until told to stop."""
    with reported():
        from hyblink.app.core.errors import InvalidInputError
        from hyblink.app.core.logs import set_up
        from hyblink.app.core.settings import Settings
        from hyblink.app.jobs.celery_jobs import QUEUES, uses_celery

        if device is not None:
            os.environ["HYBLINK_ENCODE__DEVICE"] = device
        settings = Settings()
        set_up(settings.log_level, settings.log_format)
        wanted = [one.strip() for one in queues.split(",")]
        unknown = sorted(set(wanted) - set(QUEUES))
        if unknown:
            raise InvalidInputError("unknown queue", received=unknown, expected=", ".join(QUEUES))
        if pool not in {"prefork", "solo"}:
            raise InvalidInputError("unknown pool", received=pool, expected="prefork or solo")
        if not uses_celery(settings):
            raise InvalidInputError("no broker is configured", received="jobs.broker none", expected="a broker")
        from hyblink.app.worker.tasks import run_worker

        if until_eof:
            threading.Thread(target=_end_with_stdin, daemon=True).start()
        raise typer.Exit(run_worker(settings, wanted, concurrency=concurrency, beat=beat, pool=pool))


def _end_with_stdin() -> None:
    """End when whoever started this process does, however it does."""
    while os.read(0, 4096):  # not sys.stdin: its lock would be held in every process that is forked meanwhile
        pass
    os.kill(os.getpid(), signal.SIGTERM)


class LocalWorkers:
    """The workers that a serving process starts beside itself; one that ends is started again."""

    def __init__(self, settings: Settings, *, quiet: bool = False) -> None:
        from hyblink.app.jobs.celery_jobs import uses_celery

        self._count = settings.jobs.workers if uses_celery(settings) else 0
        self._environment = {**os.environ, "HYBLINK_DATA_DIR": str(settings.data_dir.resolve())}
        if quiet:
            self._environment["HYBLINK_LOG_LEVEL"] = "WARNING"
        self._processes: list[subprocess.Popen[bytes] | None] = [None] * self._count
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="hyblink-workers", daemon=True)

    def __enter__(self) -> Self:
        for at in range(self._count):
            self._processes[at] = self._start(at)
        self._thread.start()
        return self

    def _start(self, at: int) -> subprocess.Popen[bytes]:
        beat = ["--beat"] if at == 0 else []
        command = module_command("hyblink", "worker", "--until-eof", *beat)
        environment = module_environment(self._environment)
        return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, start_new_session=True)

    def _watch(self) -> None:
        while not self._ended.wait(2):
            for at, process in enumerate(self._processes):
                if process is not None and process.poll() is not None:
                    log.error("a worker ended with status %s and is started again", process.returncode)
                    self._processes[at] = self._start(at)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        for process in self._processes:
            if process is not None:
                process.terminate()
        for process in self._processes:
            if process is None:
                continue
            try:
                process.communicate(timeout=15)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)  # what it had in hand is queued again
                process.communicate()


def _line(job: Job) -> str:
    told = job.progress
    rows = f"{told['rows']} rows, {told['rows_per_s']}/s" if "rows" in told else ""
    left = f", {told['eta_s']:.0f} s left" if "eta_s" in told and job.state in {"running", "queued"} else ""
    rejected = f", {told['rejected']} rejected" if told.get("rejected") else ""
    return f"{job.id}  {job.kind}  {job.collection}  {job.state}  {rows}{left}{rejected}  {job.error or job.message}"


@jobs_cli.command("ingest")
def jobs_ingest(
    path: Annotated[str, typer.Argument(help="A file or folder on the server, below one of jobs.roots.")],
    collection: Annotated[str, typer.Option("--collection", "-c", help="The collection.")] = "default",
    format: Annotated[str | None, typer.Option(help="jsonl, csv, tsv, markdown, text, html, pdf or beir.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Let workers read a file or folder; what was cut short goes on by itself."""
    with reported(as_json), opened() as app:
        job = start_ingestion(app, collection, {"folder": path, "format": format})
        emit(job) if as_json else say(_line(job))


@jobs_cli.command("retrain")
def jobs_retrain(
    collection: Annotated[str, typer.Option("--collection", "-c", help="The collection.")] = "default",
    rows: Annotated[int, typer.Option(min=1, max=100_000, help="Most generated questions learned from.")] = 2000,
    held_out: Annotated[int, typer.Option(min=0, max=10_000, help="Most generated questions held out.")] = 400,
    clicks: Annotated[bool, typer.Option("--clicks/--no-clicks", help="Learn from clicks as well.")] = True,
    days: Annotated[float, typer.Option(min=0, help="Only from clicks of so many days; 0: of all.")] = 0.0,
    auto: Annotated[bool, typer.Option("--auto", help="Let what passes the gate answer at once.")] = False,
    changes: Annotated[list[str] | None, typer.Option("--set", help="An option of the recipe, key=value.")] = None,
    gate: Annotated[list[str] | None, typer.Option(help="worse, gain, least_overlap, least_judged: key=value.")] = None,
    every_hours: Annotated[float, typer.Option(min=0, help="Begin so often from now on, and not now.")] = 0.0,
    as_json: JsonOption = False,
) -> None:
    """Train a collection's encoder anew from its own text and clicks; judgements decide whether it may answer."""
    with reported(as_json), opened() as app:
        from hyblink.app.access.audit import local_user
        from hyblink.app.core.errors import InvalidInputError

        bounds: dict[str, float | int] = {}
        for name, value in parse_pairs(gate, "--gate").items():
            try:
                bounds[name] = int(value) if name == "least_judged" else float(value)
            except ValueError:
                raise InvalidInputError(f"bad {name}", received=value, expected="a number") from None
        params = {
            "options": parse_pairs(changes, "--set"),
            "rows": rows,
            "held_out": held_out,
            "clicks": clicks,
            "days": days,
            "publish": "auto" if auto else "approve",
            "gate": bounds,
        }
        if every_hours:
            with audited(app, f"jobs retrain {collection} every {every_hours:g} h"):
                made = schedule_retraining(app, collection, every_hours, params, local_user())
            emit(made) if as_json else say(f"{collection} is trained anew every {every_hours:g} hours")
            return
        with audited(app, f"jobs retrain {collection}"):
            job = start_retraining(app, collection, params, local_user())
        emit(job) if as_json else say(_line(job))


@jobs_cli.command("approve")
def jobs_approve(job_id: str) -> None:
    """Let the candidate of a retraining answer."""
    with reported(), opened() as app, audited(app, f"jobs approve {job_id}"):
        from hyblink.app.access.audit import local_user

        say(_line(app.work.approve(job_id, local_user())))


@jobs_cli.command("list")
def jobs_list(
    state: Annotated[list[str] | None, typer.Option(help="Only in these states.")] = None,
    collection: Annotated[str | None, typer.Option("--collection", "-c", help="Only of this collection.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """List jobs, the newest first."""
    with reported(as_json), opened() as app:
        found = app.work.list(states=state or (), collection=collection, limit=limit)
        if as_json:
            emit(found)
        for job in [] if as_json else found:
            say(_line(job))


@jobs_cli.command("show")
def jobs_show(
    job_id: str, rejects: Annotated[int, typer.Option(min=0, max=1000, help="Rejected rows shown.")] = 10
) -> None:
    """Show a job, with the last rows that it rejected."""
    with reported(True), opened() as app:
        from dataclasses import asdict

        emit({**asdict(app.work.get(job_id)), "rejects": app.work.rejects(job_id, rejects) if rejects else []})


@jobs_cli.command("cancel")
def jobs_cancel(job_id: str) -> None:
    """Stop a job; what it has written stays."""
    with reported(), opened() as app, audited(app, f"jobs cancel {job_id}"):
        say(_line(cancel_job(app, job_id)))


@jobs_cli.command("resume")
def jobs_resume(job_id: str) -> None:
    """Go on with a cancelled or failed job where it stopped."""
    with reported(), opened() as app, audited(app, f"jobs resume {job_id}"):
        say(_line(app.work.resume(job_id)))


@jobs_cli.command("dead")
def jobs_dead(
    replay: Annotated[list[str] | None, typer.Option(help="Try the task of this dead letter again; or `all`.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """List tasks that failed for good, or try them again."""
    with reported(as_json), opened() as app:
        letters = app.work.dead_letters(limit=limit)
        if replay:
            wanted = [one.id for one in letters] if replay == ["all"] else replay
            for letter in wanted:
                done = replay_of(app, letter)
                note(f"{letter}: {done.task} {' '.join(done.args)} is queued again")
            return
        if as_json:
            emit(letters)
        for one in [] if as_json else letters:
            say(f"{one.id}  {one.at}  {one.task} {' '.join(one.args)}  {one.error}")


@jobs_cli.command("workers")
def jobs_workers(as_json: JsonOption = False) -> None:
    """Show live workers, and what waits."""
    with reported(as_json), opened() as app:
        from hyblink.app.operations.queues import queues_of

        found = queues_of(app)
        if as_json:
            emit(found)
            return
        for one in found["workers"]:
            say(f"worker {one['pid']} on {one['device']}: {', '.join(one['queues'])}; heard of {one['silent_s']} s ago")
        say("tasks that wait: " + (", ".join(f"{name} {n}" for name, n in found["queues"].items()) or "not known"))
        say("jobs: " + ", ".join(f"{count} {state}" for state, count in found["jobs"].items()))
        say("passages that wait: " + (", ".join(f"{name} {n}" for name, n in found["waiting"].items()) or "none"))
        say(f"dead letters: {found['dead_letters']}")
