"""The `hyblink` command with all its subcommands. Heavy modules are imported inside the commands to keep it fast."""

from __future__ import annotations

import typer

from hyblink.app.cli import (
    backup,
    collections,
    documents,
    evaluation,
    kb_data,
    kb_evaluation,
    link,
    search,
    secrets,
    serve,
    training,
    worker,
)
from hyblink.app.cli.console import note
from hyblink.app.cli.generations import generations_cli, profiles_cli
from hyblink.app.cli.help import LateHelpCommand
from hyblink.app.cli.jobs import jobs_cli
from hyblink.app.cli.judgements import judgements_cli
from hyblink.app.cli.keys import audit_log, keys_cli
from hyblink.app.cli.knowledge_bases import kb_cli
from hyblink.app.cli.models import models_cli
from hyblink.app.cli.node import node_cli

__all__ = ["cli", "kb_data", "kb_evaluation", "main"]

cli = typer.Typer(
    name="hyblink",
    help="Hybrid search over your own documents, with an explanation of every score, and entity linking.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for name, group in {
    "generations": generations_cli,
    "keys": keys_cli,
    "profiles": profiles_cli,
    "node": node_cli,
    "models": models_cli,
    "kb": kb_cli,
    "jobs": jobs_cli,
    "judgements": judgements_cli,
}.items():
    cli.add_typer(group, name=name)
for command in (
    documents.ingest,
    documents.sync,
    search.search,
    search.vocabulary,
    documents.get,
    documents.documents,
    documents.delete,
    collections.collections,
    collections.copy,
    collections.rename,
    collections.empty,
    collections.drop,
    documents.encode,
    documents.fsck,
    backup.backup,
    backup.restore,
    secrets.secrets,
    evaluation.evaluate,
    evaluation.tune,
    link.link,
    link.annotate,
    training.train,
    training.mine,
    training.audit,
    worker.worker,
    audit_log,
    serve.serve,
    serve.ui,
    serve.demo,
):
    cli.command(cls=LateHelpCommand)(command)
cli.command("export")(collections.export_)
cli.command("import")(collections.import_)


def main() -> None:
    """Entry point of the `hyblink` command."""
    import logging

    from hyblink.app.core.errors import HyblinkError, UserError
    from hyblink.app.core.extras import not_installed
    from hyblink.app.core.logs import set_up

    set_up(logging.WARNING)
    try:
        cli()
    except ModuleNotFoundError as error:
        known = not_installed(error)
        if known is None:
            raise
        note(f"error ({known.code}): {known}")
        raise SystemExit(1) from error
    except HyblinkError as error:  # before a command has begun, such as a bad setting
        note(f"error ({error.code}): {error}")
        raise SystemExit(2 if isinstance(error, UserError) else 1) from error


if __name__ == "__main__":
    main()
