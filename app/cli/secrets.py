"""`hyblink secrets`: passwords and certificates for the containers of compose.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hyblink.app.cli.console import reported, say


def secrets(
    folder: Annotated[Path, typer.Argument(help="The folder to make them in.")],
    owner: Annotated[
        list[str] | None, typer.Option(help="PART=USER-ID: who may read a part's secrets (needs root). Repeatable.")
    ] = None,
) -> None:
    """Make passwords and certificates for OpenSearch, Redis and hyblink, unless they are there."""
    with reported():
        from hyblink.app.core.errors import InvalidInputError
        from hyblink.app.operations.secrets import CLIENT, SERVERS, make_secrets

        owners = {}
        for text in owner or ():
            part, _, number = text.partition("=")
            if part not in {*SERVERS, CLIENT} or not number.isdigit():
                known = ", ".join((*SERVERS, CLIENT))
                raise InvalidInputError("bad --owner", received=text, expected=f"PART=USER-ID; parts: {known}")
            owners[part] = int(number)
        made = make_secrets(folder, owners)
        say(f"made for {', '.join(made)}" if made else "they are there; nothing was changed")
