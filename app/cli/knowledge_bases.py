"""`hyblink kb`: load, show and remove entities."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hyblink.app.cli.console import answer, emit, opened, progress, reported
from hyblink.app.cli.local_service import reads
from hyblink.app.cli.options import JsonOption, KbOption, WaitOption

kb_cli = typer.Typer(help="Knowledge bases for entity linking.", no_args_is_help=True)


@kb_cli.command("load")
def load(
    path: Annotated[
        Path | None,
        typer.Argument(help="Entities: .jsonl, .csv, .tsv, .json, .xml.bz2, .index …; see docs/linking.md."),
    ] = None,
    python_package: Annotated[
        str | None,
        typer.Option(help="Load the API of this installed Python package instead; `python`: the standard library."),
    ] = None,
    kb: KbOption = "entities",
    no_aliases: Annotated[bool, typer.Option("--no-aliases", help="Do not load the entities' aliases.")] = False,
    analyzer: Annotated[
        str, typer.Option(help="Text analyzer: english or standard (only for a new knowledge base).")
    ] = "english",
    dense_index: Annotated[
        str, typer.Option(help="Vector index, as in `hyblink ingest` (only for a new knowledge base).")
    ] = "auto",
    lang: Annotated[str, typer.Option(help="Language of the labels to read from Wikidata.")] = "en",
    wait: WaitOption = True,
    as_json: JsonOption = False,
) -> None:
    """Load entities into a knowledge base, which is created if it does not exist.

    Entities whose id exists already are replaced.
    """
    with reported(as_json), opened() as app, progress(as_json) as bars:
        from dataclasses import asdict

        from hyblink.app.core.errors import InvalidInputError
        from hyblink.app.operations.ingestion import load_entities
        from hyblink.indexer.readers.entities.files import python_entities, read_entities

        if (path is None) == (python_package is None):
            raise InvalidInputError("nothing to load", expected="either a path or --python-package NAME")
        rows = read_entities(path, lang) if path is not None else python_entities(str(python_package))
        loaded = load_entities(
            app,
            kb,
            rows,
            no_aliases=no_aliases,
            analyzer=analyzer,
            dense_index=dense_index,
            wait=wait,
            progress=bars,
        )
        line = (
            f"{loaded.entities} entities ({loaded.created} new, {loaded.updated} changed, "
            f"{loaded.rejected} rejected) in {loaded.seconds:.1f} s; {loaded.encoded} encoded"
            + (f"; {loaded.skipped} without a label left out" if loaded.skipped else "")
        )
    notes = [f"rejected {rejected}" for rejected in loaded.rejects]
    answer({"entities": loaded.entities, **asdict(loaded)}, as_json, [line], notes)


@kb_cli.command("show")
@reads
def show(entity_id: Annotated[str, typer.Argument(help="The entity's id.")], kb: KbOption = "entities") -> None:
    """Show an entity as JSON."""
    with reported(True), opened() as app:
        from dataclasses import asdict

        emit(asdict(app.entities.get(kb, entity_id)))


@kb_cli.command("remove")
def remove(
    entity_ids: Annotated[list[str], typer.Argument(help="Ids of entities.")],
    kb: KbOption = "entities",
    as_json: JsonOption = False,
) -> None:
    """Remove entities from every generation, so that a roll-back does not restore them."""
    with reported(as_json), opened() as app:
        from dataclasses import asdict

        items = app.entities.remove(kb, entity_ids).items
        answer([asdict(item) for item in items], as_json, (f"{item.id}: {item.status}" for item in items))
        if any(item.status == "not_found" for item in items):
            raise typer.Exit(2)


@kb_cli.command("export-vectors")
def export_vectors(
    out: Annotated[Path, typer.Option("--out", help="The .safetensors file to write.")],
    kb: KbOption = "entities",
    as_json: JsonOption = False,
) -> None:
    """Write every entity's dense vector to a file, as the training target of a mention encoder."""
    with reported(as_json), opened() as app:
        from hyblink.training.linking.vectors import write_vectors

        count = write_vectors(app.catalog.engine(kb), out)
        answer({"entities": count, "path": str(out)}, as_json, [f"{out}: {count} vectors"])
