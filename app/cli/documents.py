"""`hyblink ingest`, and the other commands for documents and collections."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hyblink.app.cli.console import answer, emit, opened, progress, reported, say
from hyblink.app.cli.local_service import reads
from hyblink.app.cli.options import CollectionOption, FormatOption, JsonOption, WaitOption


def ingest(
    path: Annotated[Path | None, typer.Argument(help="A file, a folder of files, or a BEIR folder.")] = None,
    python_package: Annotated[
        str | None,
        typer.Option(help="Ingest this installed Python package instead of a path; `python`: the standard library."),
    ] = None,
    collection: CollectionOption = "default",
    format: FormatOption = None,
    id_column: Annotated[str | None, typer.Option(help="Name of the column or field with the document's id.")] = None,
    title_column: Annotated[str | None, typer.Option(help="Name of the column or field with the title.")] = None,
    text_column: Annotated[str | None, typer.Option(help="Name of the column or field with the text.")] = None,
    whole: Annotated[
        bool, typer.Option("--whole", help="Index each document as one passage (only for a new collection).")
    ] = False,
    analyzer: Annotated[
        str, typer.Option(help="Text analyzer: english or standard (only for a new collection).")
    ] = "english",
    dense_index: Annotated[
        str,
        typer.Option(
            help="Vector index: auto, flat, hnsw, ivf,sq8 or ivf,pq; knn on OpenSearch (only for a new collection)."
        ),
    ] = "auto",
    no_dense: Annotated[
        bool, typer.Option("--no-dense", help="Compute no vectors (only for a new collection).")
    ] = False,
    wait: WaitOption = True,
    restart: Annotated[
        bool, typer.Option("--restart", help="Read from the beginning, even if an interrupted run could be resumed.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Ingest documents into a collection, which is created if it does not exist.

    An interrupted run is resumed when the command is run again.
    """
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
                file_seconds=limits.file_time_limit_s,
                file_memory=limits.file_memory_bytes,
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
            "outdated": done.outdated,
            "collection": collection,
        }
        line = (
            f"{report.documents} documents ({report.created} new, {report.updated} changed, "
            f"{report.unchanged} unchanged, {report.rejected} rejected), {report.passages} passages written "
            f"in {done.seconds:.1f} s; {done.encoded} encoded in {done.encode_seconds:.1f} s"
        )
        notes = [f"rejected {rejected}" for rejected in report.rejects]
        if done.outdated >= 0.001:
            notes.append(
                f"{done.outdated:.1%} of the entries that BM25 counts are of replaced passages; they go within minutes "
                "where a worker runs, or with the next ingestion"
            )
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
    """Delete documents by id. Exits with 2 if a document does not exist."""
    with reported(as_json), opened() as app:
        result = app.documents.delete(collection, document_ids)
        answer(result, as_json, [f"{item.id}: {item.status}" for item in result.items])
        if any(item.status == "not_found" for item in result.items):
            raise typer.Exit(2)


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
        answer(rows, as_json, lines)


def encode(collection: CollectionOption = "default") -> None:
    """Encode all passages of a collection that have no vector yet."""
    with reported(), opened() as app, progress() as bars:
        from hyblink.app.operations.ingestion import encode_with_progress

        say(f"{encode_with_progress(app, collection, bars)} passages encoded")


def fsck(
    collection: Annotated[
        str | None, typer.Option("--collection", "-c", help="Check only this collection; by default all.")
    ] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Rebuild indexes that differ from the store.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Check that indexes match the store and that encoders can be loaded. Exits with 1 if problems are left."""
    with reported(as_json), opened() as app:
        from hyblink.app.operations.collections import RECORDS, checked_names, records_problems
        from hyblink.app.operations.collections import fsck as check

        names = [collection] if collection else checked_names(app)
        found = {name: check(app, name, repair=repair) for name in names}
        left = {name: check(app, name) for name in names} if repair else dict(found)
        if not collection and (problems := records_problems(app)):
            found[RECORDS] = left[RECORDS] = problems

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
