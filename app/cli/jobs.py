"""`hyblink jobs`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hyblink.app.cli.console import answer, audited, emit, note, opened, parse_pairs, reported, say
from hyblink.app.cli.help import LateHelpCommand
from hyblink.app.cli.local_service import reads
from hyblink.app.cli.options import CollectionOption, FormatOption, JsonOption

if TYPE_CHECKING:
    from hyblink.app.jobs.job import Job

jobs_cli = typer.Typer(
    help="Background jobs: ingest, retrain, approve, list, show, cancel, resume; dead letters; workers.",
    no_args_is_help=True,
)


def _line(job: Job) -> str:
    told = job.progress
    rows = f"{told['rows']} rows, {told['rows_per_s']}/s" if "rows" in told else ""
    left = f", {told['eta_s']:.0f} s left" if "eta_s" in told and job.state in {"running", "queued"} else ""
    rejected = f", {told['rejected']} rejected" if told.get("rejected") else ""
    return f"{job.id}  {job.kind}  {job.collection}  {job.state}  {rows}{left}{rejected}  {job.error or job.message}"


@jobs_cli.command("ingest", cls=LateHelpCommand)
def jobs_ingest(
    path: Annotated[str, typer.Argument(help="A file or folder on the server, below one of jobs.roots.")],
    collection: CollectionOption = "default",
    format: FormatOption = None,
    as_json: JsonOption = False,
) -> None:
    """Start a job that ingests a file or folder in the background. An interrupted job resumes by itself."""
    with reported(as_json), opened() as app:
        from hyblink.app.operations.jobs import start_ingestion

        job = start_ingestion(app, collection, {"folder": path, "format": format})
        answer(job, as_json, [_line(job)])


@jobs_cli.command("retrain")
def jobs_retrain(
    collection: CollectionOption = "default",
    rows: Annotated[
        int, typer.Option(min=1, max=100_000, help="Largest number of generated questions to train on.")
    ] = 2000,
    held_out: Annotated[
        int, typer.Option(min=0, max=10_000, help="Largest number of generated questions held out for evaluation.")
    ] = 400,
    clicks: Annotated[bool, typer.Option("--clicks/--no-clicks", help="Train on clicks too, or not.")] = True,
    days: Annotated[float, typer.Option(min=0, help="Use only clicks of the last so many days; 0: all clicks.")] = 0.0,
    auto: Annotated[
        bool, typer.Option("--auto", help="Publish a model that passes the gate without asking for approval.")
    ] = False,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="Change an option of the recipe: key=value; may be repeated.")
    ] = None,
    gate: Annotated[
        list[str] | None,
        typer.Option(
            help="Change a bound of the gate (worse, gain, least_overlap or least_judged): key=value; may be repeated."
        ),
    ] = None,
    every_hours: Annotated[
        float,
        typer.Option(min=0, help="Schedule a retraining every so many hours instead of starting one; 0: start now."),
    ] = 0.0,
    as_json: JsonOption = False,
) -> None:
    """Start a job that retrains a collection's encoder on its own text and clicks.

    Judged queries decide whether the new encoder is good enough to be published.
    """
    with reported(as_json), opened() as app:
        from hyblink.app.access.audit import local_user
        from hyblink.app.core.errors import InvalidInputError
        from hyblink.app.operations.retraining import schedule_retraining, start_retraining

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
            answer(made, as_json, [f"{collection} is trained anew every {every_hours:g} hours"])
            return
        with audited(app, f"jobs retrain {collection}"):
            job = start_retraining(app, collection, params, local_user())
        answer(job, as_json, [_line(job)])


@jobs_cli.command("approve")
def jobs_approve(job_id: str) -> None:
    """Approve a retraining that waits for it: its candidate generation is published."""
    with reported(), opened() as app, audited(app, f"jobs approve {job_id}"):
        from hyblink.app.access.audit import local_user

        say(_line(app.job_records.approve(job_id, local_user())))


@jobs_cli.command("list")
@reads
def jobs_list(
    state: Annotated[
        list[str] | None, typer.Option(help="Only jobs in this state; may be repeated. By default all states.")
    ] = None,
    collection: Annotated[
        str | None, typer.Option("--collection", "-c", help="Only jobs of this collection; by default of all.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Largest number of jobs to list.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """List jobs, newest first."""
    with reported(as_json), opened() as app:
        found = app.job_records.list(states=state or (), collection=collection, limit=limit)
        answer(found, as_json, map(_line, found))


@jobs_cli.command("show")
@reads
def jobs_show(
    job_id: str,
    rejects: Annotated[int, typer.Option(min=0, max=1000, help="Largest number of rejected rows to show.")] = 10,
) -> None:
    """Show a job as JSON, with the last rows that it rejected."""
    with reported(True), opened() as app:
        from dataclasses import asdict

        emit(
            {
                **asdict(app.job_records.get(job_id)),
                "rejects": app.job_records.rejects(job_id, rejects) if rejects else [],
            }
        )


@jobs_cli.command("cancel")
def jobs_cancel(job_id: str) -> None:
    """Cancel a job. Documents that it has written stay."""
    with reported(), opened() as app, audited(app, f"jobs cancel {job_id}"):
        from hyblink.app.operations.jobs import cancel_job

        say(_line(cancel_job(app, job_id)))


@jobs_cli.command("resume")
def jobs_resume(job_id: str) -> None:
    """Resume a cancelled or failed job where it stopped."""
    with reported(), opened() as app, audited(app, f"jobs resume {job_id}"):
        say(_line(app.job_records.resume(job_id)))


@jobs_cli.command("dead")
def jobs_dead(
    replay: Annotated[
        list[str] | None,
        typer.Option(help="Queue the task of this dead letter again; may be repeated. `all`: of all listed letters."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Largest number of dead letters to list.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """List dead letters (tasks that failed for good), or queue them again."""
    with reported(as_json), opened() as app:
        from hyblink.app.operations.jobs import replay as replay_task

        letters = app.job_records.dead_letters(limit=limit)
        if replay:
            wanted = [item.id for item in letters] if replay == ["all"] else replay
            for letter in wanted:
                done = replay_task(app, letter)
                note(f"{letter}: {done.task} {' '.join(done.args)} is queued again")
            return
        lines = (f"{item.id}  {item.at}  {item.task} {' '.join(item.args)}  {item.error}" for item in letters)
        answer(letters, as_json, lines)


@jobs_cli.command("workers")
@reads
def jobs_workers(as_json: JsonOption = False) -> None:
    """Show live workers, queue lengths, jobs by state, and passages without a vector."""
    with reported(as_json), opened() as app:
        from hyblink.app.operations.queues import queues_of

        found = queues_of(app)
        answer(found, as_json, lambda: _queues(found))


def _queues(found: dict[str, Any]) -> Iterator[str]:
    for result in found["workers"]:
        yield f"worker {result['pid']} on {result['device']}: {', '.join(result['queues'])}; heard of {result['silent_s']} s ago"
    yield "tasks that wait: " + (", ".join(f"{name} {n}" for name, n in found["queues"].items()) or "not known")
    yield "jobs: " + ", ".join(f"{count} {state}" for state, count in found["jobs"].items())
    yield "passages that wait: " + (", ".join(f"{name} {n}" for name, n in found["waiting"].items()) or "none")
    yield f"dead letters: {found['dead_letters']}"
