"""`hyblink keys` and `hyblink audit-log`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hyblink.app.cli.console import answer, audited, opened, reported, say
from hyblink.app.cli.options import JsonOption

if TYPE_CHECKING:
    from hyblink.app.access.keys import KeyStore
    from hyblink.app.application import App

keys_cli = typer.Typer(help="API keys: create, list, rotate, revoke.", no_args_is_help=True)


def _keys(app: App) -> KeyStore:
    from hyblink.app.access.keys import KeyStore

    return KeyStore(app.catalog.records())


@keys_cli.command("create")
def keys_create(
    role: Annotated[str, typer.Option(help="Role of the key: search, ingest or admin.")],
    collection: Annotated[
        list[str] | None,
        typer.Option("--collection", "-c", help="A collection that the key may use; may be repeated. By default all."),
    ] = None,
    note_text: Annotated[str, typer.Option("--note", help="A note, such as the key's owner.")] = "",
    per_minute: Annotated[
        int, typer.Option(min=0, help="Largest number of requests a minute; 0: the server's setting.")
    ] = 0,
    max_bytes: Annotated[int, typer.Option(min=0, help="Largest request body, in bytes; 0: the server's setting.")] = 0,
) -> None:
    """Create an API key and print it. It cannot be shown again."""
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
    grace_s: Annotated[
        float, typer.Option(min=0, help="How many seconds the old secret stays valid; 0: it ends at once.")
    ] = 0.0,
) -> None:
    """Replace a key's secret and print the new one. It cannot be shown again."""
    with reported(), opened() as app, audited(app, f"keys rotate {key_id}"):
        say(_keys(app).rotate(key_id, grace_s=grace_s))


@keys_cli.command("revoke")
def keys_revoke(key_id: str) -> None:
    """Revoke a key: requests with it are refused."""
    with reported(), opened() as app, audited(app, f"keys revoke {key_id}"):
        _keys(app).revoke(key_id)
        say(f"{key_id} revoked")


def audit_log(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Largest number of entries to show.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """Show the audit log: administrative actions and attempts, with user and outcome, newest first."""
    with reported(as_json), opened() as app:
        from hyblink.app.access.audit import Audit

        found = [act for _, act in Audit(app.catalog.records()).list(limit=limit)]
        answer(found, as_json, (f"{act.at}  {act.by}  {act.act}  {act.outcome}" for act in found))
