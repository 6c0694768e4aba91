"""Commands that back up an installation and restore it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from hyblink.app.cli.console import answer, opened, reported
from hyblink.app.cli.options import JsonOption


def backup(
    folder: Annotated[Path, typer.Argument(help="The folder to create.")],
    repository: Annotated[
        str | None,
        typer.Option(help="OpenSearch: the snapshot repository; by default one in a folder of the nodes' path.repo."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Back up all collections, keys, jobs and models, while they are in use."""
    with reported(as_json), opened() as app:
        from hyblink.app.operations.backup import back_up

        made = back_up(app, folder, repository)
        size = f"{made.bytes / 1e6:.1f} MB in {made.files} files"
        answer(asdict(made), as_json, [f"{len(made.collections)} collections backed up to {folder} ({size})"])


def restore(
    folder: Annotated[Path, typer.Argument(help="A folder written by `hyblink backup`.")],
    replace: Annotated[
        bool, typer.Option("--replace", help="Move what is there aside (OpenSearch: delete it) first.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Restore a backup. The service has to be stopped."""
    with reported(as_json):
        from hyblink.app.core.private import make_private, write_private_files
        from hyblink.app.core.settings import Settings
        from hyblink.app.operations.backup import restore as put_back

        settings = Settings()
        if settings.private_data:
            make_private(settings.data_dir)
            write_private_files()
        made, aside = put_back(settings, folder, replace=replace)
        lines = [f"{len(made.collections)} collections of {made.created} restored: {', '.join(made.collections)}"]
        if aside is not None:
            lines.append(f"the former data is in {aside}")
        answer({**asdict(made), "former": None if aside is None else str(aside)}, as_json, lines)
