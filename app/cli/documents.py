"""`hyblink ingest` and what else concerns documents and collections."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hyblink.app.cli.console import answer, emit, opened, progress, reported, say
from hyblink.app.cli.local_service import reads
from hyblink.app.cli.options import CollectionOption, FormatOption, JsonOption, WaitOption


def ingest(
    path: Annotated[Path | None, typer.Argument(help="A file, a folder, or a BEIR folder.")] = None,
    python_package: Annotated[
        str | None, typer.Option(help="An installed Python package; `python` is the standard library.")
    ] = None,
    collection: CollectionOption = "default",
    format: FormatOption = None,
    id_column: Annotated[str | None, typer.Option(help="The field that holds the id.")] = None,
    title_column: Annotated[str | None, typer.Option(help="The field that holds the title.")] = None,
    text_column: Annotated[str | None, typer.Option(help="The field that holds the text.")] = None,
    whole: Annotated[bool, typer.Option("--whole", help="Do not cut documents (a new collection only).")] = False,
    analyzer: Annotated[str, typer.Option(help="english or standard (a new collection only).")] = "english",
    dense_index: Annotated[
        str, typer.Option(help="auto, flat, hnsw, ivf,sq8, ivf,pq, or knn on OpenSearch (a new collection only).")
    ] = "auto",
    no_dense: Annotated[bool, typer.Option("--no-dense", help="No vectors (a new collection only).")] = False,
    wait: WaitOption = True,
    restart: Annotated[
        bool, typer.Option("--restart", help="Read from the beginning even if a run was cut short.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Read documents into a collection. A run that was cut short goes on where it stopped."""
    with reported(as_json), opened() as app:
        from dataclasses import asdict

        from hyblink.app.core.errors import InvalidInputError
        from hyblink.app.operations.ingestion import NewCollection, ingest_source
        from hyblink.indexer.readers.files import FileSource
        from hyblink.indexer.readers.python_package import PythonSource

        if (path is None) == (python_package is None):
            raise InvalidInputError("nothing to ingest", expected="either a path or --python-package NAME")
        limits = app.settings.ingest
        source: FileSource | PythonSource
        if path is not None:
            names = {"id": id_column, "title": title_column, "text": text_column}
            source = FileSource(
                path,
                format=format,
                columns={target: column for target, column in names.items() if column},
                max_row_bytes=limits.max_row_bytes,
                max_chars=limits.max_document_chars,
            )
        else:
            assert python_package is not None
            source = PythonSource(python_package, max_chars=limits.max_document_chars)
        new = NewCollection(whole or source.is_beir, analyzer, dense_index, no_dense)
        with progress(as_json) as bars:
            done = ingest_source(app, source, collection, new, wait=wait, resume=not restart, progress=bars)
        report = done.report
        shown = {
            **asdict(report),
            "rejects_file": done.rejects_file,
            "documents": report.documents,
            "seconds": done.seconds,
            "encoded": done.encoded,
            "encode_seconds": done.encode_seconds,
            "collection": collection,
        }
        line = (
            f"{report.documents} documents ({report.created} new, {report.updated} changed, "
            f"{report.unchanged} unchanged, {report.rejected} rejected), {report.passages} passages written "
            f"in {done.seconds:.1f} s; {done.encoded} encoded in {done.encode_seconds:.1f} s"
        )
        notes = [f"rejected {rejected}" for rejected in report.rejects]
        if report.rejected:
            notes.append(f"all rejected rows: {done.rejects_file}")
        answer(shown, as_json, [line], notes)


@reads
def get(document_id: str, collection: CollectionOption = "default") -> None:
    """Print a document as JSON."""
    with reported(), opened() as app:
        from dataclasses import asdict

        emit(asdict(app.documents.get(collection, document_id)))


def delete(document_ids: list[str], collection: CollectionOption = "default", as_json: JsonOption = False) -> None:
    """Delete documents."""
    with reported(as_json), opened() as app:
        result = app.documents.delete(collection, document_ids)
        answer(result, as_json, [f"{item.id}: {item.status}" for item in result.items])
        if any(item.status == "not_found" for item in result.items):
            raise typer.Exit(2)


@reads
def collections(as_json: JsonOption = False) -> None:
    """List collections and what they hold."""
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
        answer(rows, as_json, lines)


def encode(collection: CollectionOption = "default") -> None:
    """Encode what still waits on the instant tier."""
    with reported(), opened() as app, progress() as bars:
        from hyblink.app.operations.ingestion import encode_with_progress

        say(f"{encode_with_progress(app, collection, bars)} passages encoded")


def fsck(
    collection: Annotated[str | None, typer.Option("--collection", "-c", help="Only this one.")] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Derive again what differs from the store.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Compare every store with the indexes derived from it and the models that it names."""
    with reported(as_json), opened() as app:
        from hyblink.app.operations.collections import fsck as check

        names = [collection] if collection else app.catalog.names()
        found = {name: check(app, name, repair=repair) for name in names}
        left = {name: check(app, name) for name in names} if repair else found

        def lines() -> list[str]:
            shown = []
            for name, problems in found.items():
                shown.append(f"{name}: {'clean' if not problems else ''}")
                shown += [f"  {problem}" for problem in problems]
                if repair and problems:
                    shown.append(f"  repaired; left: {left[name] or 'nothing'}")
            return shown

        answer({"problems": found, "left": left}, as_json, lines)
        if any(left.values()):
            raise typer.Exit(1)


def export_(
    folder: Annotated[Path, typer.Argument(help="A folder to make.")],
    collection: CollectionOption = "default",
) -> None:
    """Write a collection with its weights and vectors into a folder."""
    with reported(), opened() as app, progress() as bars:
        from hyblink.app.operations.ingestion import export_to

        say(f"{export_to(app, collection, folder, bars)} documents exported")


def import_(
    folder: Annotated[Path, typer.Argument(help="A folder made by `hyblink export`.")],
    collection: Annotated[
        str | None, typer.Option("--collection", "-c", help="A new name; by default its old one.")
    ] = None,
) -> None:
    """Make a collection from an exported folder; nothing is encoded again."""
    with reported(), opened() as app:
        from hyblink.app.operations.collections import import_from

        name, count = import_from(app, folder, collection)
        say(f"{count} documents imported into {name}")
