"""`hyblink ingest`, and the other commands for documents and collections."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import uuid4

import typer

from hyblink.app.cli.console import answer, audited, emit, opened, parse_json, progress, reported, say
from hyblink.app.cli.ingestion import is_spooled, lines_of, notes_of, previewed, report_of, spooled, synced_report
from hyblink.app.cli.local_service import reads
from hyblink.app.cli.options import (
    BoilerplateOption,
    CollectionOption,
    FilterOption,
    FormatOption,
    JsonOption,
    OcrOption,
    PrefixIdsOption,
    RowsOption,
    WaitOption,
)

if TYPE_CHECKING:
    from hyblink.app.core.filters import Filter


def ingest(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="PATH…",
            help="Files and folders, archives and mailboxes among them, or a BEIR folder; `-` for standard input.",
        ),
    ] = None,
    python_package: Annotated[
        str | None,
        typer.Option(help="Ingest this installed Python package instead of a path; `python`: the standard library."),
    ] = None,
    collection: CollectionOption = "default",
    format: FormatOption = None,
    id_column: Annotated[str | None, typer.Option(help="Name of the column or field with the document's id.")] = None,
    title_column: Annotated[str | None, typer.Option(help="Name of the column or field with the title.")] = None,
    text_column: Annotated[
        str | None, typer.Option(help="Name of the column or field with the text; several: separated by commas.")
    ] = None,
    encoding: Annotated[
        str | None, typer.Option(help="Encoding of text files, such as cp1252; by default it is found out for each.")
    ] = None,
    no_header: Annotated[bool, typer.Option("--no-header", help="The first row of a table is data.")] = False,
    ocr: OcrOption = False,
    keep_boilerplate: BoilerplateOption = False,
    rows: RowsOption = False,
    prefix_ids: PrefixIdsOption = False,
    preview: Annotated[
        bool,
        typer.Option("--preview", help="Show the first 20 documents as they would be, and store nothing."),
    ] = False,
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

    An interrupted run is resumed when the command is run again. What is not read is listed with the reason. The exit
    code is 1 if nothing could be read.
    """
    with reported(as_json), opened() as app, spooled(paths) as read:
        from hyblink.app.core.errors import InvalidInputError
        from hyblink.app.operations.ingestion import Ingested, NewCollection, added_up, ingest_source
        from hyblink.app.operations.sources import SourceName, named
        from hyblink.indexer.ingest.ingest_job import reading_limits
        from hyblink.indexer.readers.files import FileSource
        from hyblink.indexer.readers.python_package import PythonSource

        if bool(paths) == (python_package is not None):
            raise InvalidInputError("nothing to ingest", expected="either paths or --python-package NAME")
        limits = app.settings.ingest
        names = {"id": id_column, "title": title_column, "text": text_column}

        def files(path: Path) -> FileSource:
            is_pipe = is_spooled(path)
            own = SourceName("", "") if is_pipe else named(app, collection, path, remember=not preview)
            return FileSource(
                path,
                source_id=f"pipe:{uuid4()}" if is_pipe else None,
                format=format,
                columns={target: column for target, column in names.items() if column},
                encoding=encoding,
                header=not no_header,
                ocr=ocr,
                keep_boilerplate=keep_boilerplate,
                rows=rows,
                prefix_ids=prefix_ids,
                **reading_limits(limits),
                prefix=own.prefix,
                name=own.name,
            )

        def sources() -> Iterator[FileSource | PythonSource]:
            if python_package is not None:
                yield PythonSource(python_package, max_chars=limits.max_document_chars)
            for path in read:
                yield files(path)

        if preview:
            shown, lines, notes = previewed(sources())
            answer(shown, as_json, lines, notes)
            return
        for path in read:  # a path that is not there is told before anything is stored
            files(path)
        parts: list[Ingested] = []
        with progress(as_json) as bars:
            for source in sources():
                new = NewCollection(whole or source.is_beir, analyzer, dense_index, no_dense)
                last = len(parts) + 1 == len(read or [""])
                parts.append(
                    ingest_source(app, source, collection, new, wait=wait and last, resume=not restart, progress=bars)
                )
        done = added_up(parts)
        answer(report_of(done), as_json, lines_of(done), notes_of(done))
        if done.nothing_read:
            raise typer.Exit(1)


def sync(
    source: Annotated[
        str,
        typer.Argument(
            help="A folder, a web page, sitemap or list of addresses (https://…), a bucket (s3://…), a database's "
            "address (with --query), or the name of a source in the settings.",
        ),
    ],
    collection: CollectionOption = "default",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Remove documents even if more than half of them are gone from the folder.")
    ] = False,
    watch: Annotated[
        float, typer.Option(min=0, help="Look again every so many seconds, until it is stopped; 0: once.")
    ] = 0.0,
    query: Annotated[str, typer.Option(help="The query of a database whose rows are documents.")] = "",
    id_column: Annotated[str, typer.Option(help="The column with the id of a row.")] = "",
    title_column: Annotated[str, typer.Option(help="The column with the title.")] = "",
    text_column: Annotated[str, typer.Option(help="The column with the text; several with commas.")] = "",
    ocr: OcrOption = False,
    keep_boilerplate: BoilerplateOption = False,
    rows: RowsOption = False,
    prefix_ids: PrefixIdsOption = False,
    wait: WaitOption = True,
    as_json: JsonOption = False,
) -> None:
    """Keep a collection in step with a source: ingest what is new or changed, remove what is gone.

    Documents of files that cannot be read stay. Other sources of the collection are not touched.
    """
    import time

    while True:
        with reported(as_json), opened() as app, progress(as_json) as bars:
            from hyblink.app.operations.sources import described, opened_source
            from hyblink.app.operations.sync import sync as run

            name, told = described(source, app.settings, query)
            if name and collection == "default":
                collection = told.collection or name
            given = {"id": id_column, "title": title_column, "text": text_column}
            columns = {target: column for target, column in given.items() if column}
            how = {"ocr": ocr, "keep_boilerplate": keep_boilerplate, "rows": rows, "prefix_ids": prefix_ids}
            asked = {option: True for option, wanted in how.items() if wanted}
            found = opened_source(app, collection, name, told, remember=not dry_run, columns=columns, **asked)
            done = run(app, collection, found, dry_run=dry_run, force=force, wait=wait, progress=bars)
            shown, lines, notes = synced_report(done)
            answer(shown, as_json, lines, notes)
        if not watch:
            return
        time.sleep(watch)


@reads
def get(document_id: str, collection: CollectionOption = "default") -> None:
    """Print a document as JSON."""
    with reported(), opened() as app:
        from dataclasses import asdict

        emit(asdict(app.documents.get(collection, document_id)))


def documents(
    collection: CollectionOption = "default",
    filter: FilterOption = None,
    limit: Annotated[int, typer.Option(min=1, help="Largest number of documents to list.")] = 50,
    after: Annotated[str, typer.Option(help="List only ids after this one, the last of the page before.")] = "",
    export: Annotated[
        Path | None,
        typer.Option(help="Write all of them whole to this file, a JSON object a line, which can be ingested again."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List documents by id, or export them: all, or those that pass a filter."""
    with reported(as_json), opened() as app:
        from dataclasses import asdict

        from hyblink.app.operations.listing import export_lines, matching_ids, page_of

        tree = _filter(filter)
        if export is not None:
            count = export_lines(app, collection, matching_ids(app, collection, tree), export)
            answer({"exported": count, "file": str(export)}, as_json, [f"{count} documents written to {export}"])
            return
        page = page_of(app, collection, tree, after, limit)
        notes = [f"{page.total} documents; {page.left} after these: --after {page.last!r}"] if page.left else []
        shown = {"documents": [asdict(one) for one in page.documents], "total": page.total}
        lines = [f"{one.id}  {one.title}  ({len(one.text)} characters)" for one in page.documents]
        answer(shown, as_json, lines, notes)


def delete(
    document_ids: Annotated[list[str] | None, typer.Argument(help="Ids of documents.")] = None,
    collection: CollectionOption = "default",
    filter: FilterOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be deleted.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Delete documents by id, or all that pass a filter. Exits with 2 if an id does not exist."""
    with reported(as_json), opened() as app:
        from hyblink.app.core.errors import InvalidInputError
        from hyblink.app.operations.listing import delete_all, matching_ids

        if bool(document_ids) == bool(filter):
            raise InvalidInputError("what to delete?", expected="either ids or --filter")
        ids = document_ids or matching_ids(app, collection, _filter(filter))
        if dry_run:
            answer({"would_delete": ids}, as_json, ids, [f"{len(ids)} documents would be deleted"])
            return
        if filter:
            with audited(app, f"delete {len(ids)} documents of {collection} by a filter"):
                gone = delete_all(app, collection, ids)
            answer({"deleted": gone}, as_json, [f"{gone} documents deleted"])
            return
        result = app.documents.delete(collection, ids)
        answer(result, as_json, [f"{item.id}: {item.status}" for item in result.items])
        if any(item.status == "not_found" for item in result.items):
            raise typer.Exit(2)


def _filter(given: str | None) -> Filter | None:
    """The filter of an option. Raises InvalidInputError."""
    from hyblink.app.core.filters import parse_filter

    return parse_filter(parse_json(given, "--filter")) if given else None


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
