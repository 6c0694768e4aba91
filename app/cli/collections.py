"""Commands for collections: list, copy, rename, empty, remove, export and import."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hyblink.app.cli.console import answer, audited, opened, progress, reported, say, where_collections_are
from hyblink.app.cli.local_service import reads
from hyblink.app.cli.options import CollectionOption, JsonOption


@reads
def collections(as_json: JsonOption = False) -> None:
    """List collections with their numbers of documents, passages and encoded passages."""
    with reported(as_json), opened() as app:
        from hyblink.app.operations.collections import collection_state

        rows = []
        for name in app.catalog.names():
            state = collection_state(app, name)
            rows.append(
                {
                    "name": name,
                    "generation": state.record.id,
                    "documents": state.counts.documents,
                    "passages": state.counts.passages,
                    "encoded": state.counts.encoded,
                    "dense_encoder": state.record.dense_encoder,
                }
            )
        lines = (
            f"{row['name']}: {row['documents']} documents, {row['passages']} passages, {row['encoded']} encoded, "
            f"{row['generation']}"
            for row in rows
        )
        answer(rows, as_json, lines, [] if rows else [f"no collection yet; {where_collections_are()}"])


def copy(
    collection: Annotated[str, typer.Argument(help="The collection to copy.")],
    name: Annotated[str, typer.Argument(help="The name of the copy.")],
) -> None:
    """Copy a collection with its vectors, ranking profile and judgements, but without older generations and clicks."""
    with reported(), opened() as app, progress() as bars:
        from hyblink.app.operations.renaming import copy_collection

        with audited(app, f"copy {collection} to {name}"):
            count = copy_collection(app, collection, name, bars)
        say(f"{name} has {count} documents of {collection}")


def rename(
    collection: Annotated[str, typer.Argument(help="The collection to rename.")],
    name: Annotated[str, typer.Argument(help="Its new name.")],
) -> None:
    """Rename a collection. Its older generations and clicks go."""
    with reported(), opened() as app, progress() as bars:
        from hyblink.app.operations.renaming import rename_collection

        with audited(app, f"rename {collection} to {name}"):
            count = rename_collection(app, collection, name, bars)
        say(f"{collection} with {count} documents is {name} now")


def empty(
    collection: Annotated[str, typer.Argument(help="The collection whose documents are deleted.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete all documents of a collection. Its settings, profiles and judgements stay."""
    with reported(), opened() as app:
        from hyblink.app.operations.renaming import empty_collection

        count = app.catalog.engine(collection).store.reader().counts().documents
        if not yes:
            typer.confirm(f"Delete all {count} documents of {collection}?", abort=True)
        with audited(app, f"empty {collection}"):
            gone = empty_collection(app, collection)
        say(f"{gone} documents of {collection} deleted")


def drop(
    collection: Annotated[str, typer.Argument(help="The collection to remove, with all its generations.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove a collection for good. Its documents are gone; `hyblink export` keeps them."""
    with reported(), opened() as app:
        count = app.catalog.engine(collection).store.reader().counts().documents
        if not yes:
            typer.confirm(f"Remove {collection} with {count} documents?", abort=True)
        with audited(app, f"drop {collection}"):
            app.catalog.delete(collection)
        say(f"{collection} with {count} documents removed")


def export_(
    folder: Annotated[Path, typer.Argument(help="The folder to create.")],
    collection: CollectionOption = "default",
) -> None:
    """Export a collection with its VDR weights and vectors to a folder."""
    with reported(), opened() as app, progress() as bars:
        from hyblink.app.operations.ingestion import export_to

        say(f"{export_to(app, collection, folder, bars)} documents exported")


def import_(
    folder: Annotated[Path, typer.Argument(help="A folder written by `hyblink export`.")],
    collection: Annotated[
        str | None, typer.Option("--collection", "-c", help="Name of the new collection; by default the exported name.")
    ] = None,
) -> None:
    """Create a collection from an exported folder, without encoding it again."""
    with reported(), opened() as app:
        from hyblink.app.operations.collections import import_from

        name, count = import_from(app, folder, collection)
        say(f"{count} documents imported into {name}")
