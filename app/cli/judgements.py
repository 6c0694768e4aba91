"""`hyblink judgements`: import and export judgements, and estimate them from clicks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hyblink.app.cli.console import answer, opened, reported, say
from hyblink.app.cli.options import CollectionOption, JsonOption

judgements_cli = typer.Typer(help="Judgements and clicks of a collection.", no_args_is_help=True)


@judgements_cli.command("import")
def import_(
    folder: Annotated[Path, typer.Argument(help="A BEIR folder: queries.jsonl and qrels/SPLIT.tsv.")],
    collection: CollectionOption = "default",
    split: Annotated[str, typer.Option(help="The split: reads qrels/SPLIT.tsv.")] = "train",
) -> None:
    """Import judgements from a BEIR folder. Grades above 3 are stored as 3."""
    with reported(), opened() as app:
        from hyblink.app.evaluation.beir import read_beir
        from hyblink.app.feedback.click_model import MAX_GRADE
        from hyblink.app.feedback.feedback import MAX_AT_ONCE

        app.catalog.spec(collection)
        queries, qrels = read_beir(folder, split)
        rows = [
            {"query": queries[query], "document_id": document, "grade": max(0, min(MAX_GRADE, grade))}
            for query, grades in qrels.items()
            for document, grade in grades.items()
        ]
        for at in range(0, len(rows), MAX_AT_ONCE):
            app.feedback.judge(collection, rows[at : at + MAX_AT_ONCE], source="import")
        say(f"{len(rows)} judgements of {len(queries)} queries")


@judgements_cli.command("export")
def export(
    folder: Annotated[Path, typer.Argument(help="The BEIR folder to create, with the split `train`.")],
    collection: CollectionOption = "default",
) -> None:
    """Export judgements with the judged documents, in the format that train, tune and evaluate read."""
    with reported(), opened() as app:
        from hyblink.app.feedback.feedback import write_beir

        queries, qrels = app.feedback.qrels(collection)
        reader = app.catalog.engine(collection).snapshot().reader
        found = {name: reader.get_document(name) for name in {name for grades in qrels.values() for name in grades}}
        texts = {name: (result.title, result.text) for name, result in found.items() if result is not None}
        kept = {
            query: {name: grade for name, grade in grades.items() if name in texts} for query, grades in qrels.items()
        }
        write_beir(folder, queries, kept, texts)
        say(
            f"{sum(map(len, kept.values()))} judgements of {len(queries)} queries, {len(found) - len(texts)} documents gone"
        )


@judgements_cli.command("from-clicks")
def from_clicks(
    collection: CollectionOption = "default",
    min_views: Annotated[
        int, typer.Option(min=1, help="Smallest number of times that a document must have been shown for a query.")
    ] = 10,
    as_json: JsonOption = False,
) -> None:
    """Estimate judgements from the click log, corrected for position bias."""
    with reported(as_json), opened() as app:
        found, _ = app.feedback.judge_by_clicks(collection, min_views=min_views)
        first = f"{found.judged} judgements from {found.clicks} clicks in {found.searches} searches"
        looked = "looked at, by rank: " + ", ".join(f"{share:.2f}" for share in found.examination[:10])
        answer(found, as_json, [first, looked])
