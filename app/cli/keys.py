"""`hyblink keys` and `hyblink audit-log`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hyblink.app.cli.console import answer, audited, opened, reported, say
from hyblink.app.cli.options import JsonOption

if TYPE_CHECKING:
    from hyblink.app.access.keys import KeyStore
    from hyblink.app.application import App

keys_cli = typer.Typer(help="API keys.", no_args_is_help=True)


def _keys(app: App) -> KeyStore:
    from hyblink.app.access.keys import KeyStore

    return KeyStore(app.catalog.records())


@keys_cli.command("create")
def keys_create(
    role: Annotated[str, typer.Option(help="search, ingest or admin.")],
    collection: Annotated[list[str] | None, typer.Option("--collection", "-c", help="Only these collections.")] = None,
    note_text: Annotated[str, typer.Option("--note", help="Whose it is.")] = "",
    per_minute: Annotated[int, typer.Option(min=0, help="Requests a minute; 0: as the server is set.")] = 0,
    max_bytes: Annotated[int, typer.Option(min=0, help="Largest body of a request; 0: as the server is set.")] = 0,
) -> None:
    """Make an API key. It is shown once."""
    with reported(), opened() as app, audited(app, f"keys create {role}"):
        from hyblink.app.core.clock import now

        say(_keys(app).create(role, now(), collection or (), note_text, per_minute, max_bytes))


@keys_cli.command("list")
def keys_list(as_json: JsonOption = False) -> None:
    """List keys, without their secrets."""
    with reported(as_json), opened() as app:
        keys = _keys(app).all()
        lines = (
            f"{key.id}  {key.role}  {','.join(key.collections) or 'all collections'}  "
            f"{'revoked' if key.revoked else ''}  {key.note}"
            for key in keys
        )
        answer([key.shown() for key in keys], as_json, lines)


@keys_cli.command("rotate")
def keys_rotate(
    key_id: str,
    grace_s: Annotated[float, typer.Option(min=0, help="How long the former secret is good, in seconds.")] = 0.0,
) -> None:
    """Give a key a new secret. It is shown once."""
    with reported(), opened() as app, audited(app, f"keys rotate {key_id}"):
        say(_keys(app).rotate(key_id, grace_s=grace_s))


@keys_cli.command("revoke")
def keys_revoke(key_id: str) -> None:
    """Make a key useless."""
    with reported(), opened() as app, audited(app, f"keys revoke {key_id}"):
        _keys(app).revoke(key_id)
        say(f"{key_id} revoked")


def audit_log(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 50, as_json: JsonOption = False
) -> None:
    """Show what administrators did, and who tried to, the newest first."""
    with reported(as_json), opened() as app:
        from hyblink.app.access.audit import Audit

        found = [act for _, act in Audit(app.catalog.records()).list(limit=limit)]
        answer(found, as_json, (f"{act.at}  {act.by}  {act.act}  {act.outcome}" for act in found))
