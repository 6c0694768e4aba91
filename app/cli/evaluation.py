"""`hyblink evaluate` and `hyblink tune`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hyblink.app.cli.console import answer, opened, progress, reported
from hyblink.app.cli.options import CollectionOption, GenerationOption, JsonOption

if TYPE_CHECKING:
    from hyblink.app.operations.evaluation import Evaluation


def evaluate(
    folder: Annotated[Path, typer.Argument(help="A BEIR folder: queries.jsonl and qrels/SPLIT.tsv.")],
    split: Annotated[str, typer.Option(help="The split: reads qrels/SPLIT.tsv.")] = "test",
    collection: CollectionOption = "default",
    systems: Annotated[
        str,
        typer.Option(
            help="Systems to measure, comma-separated: bm25, vdr, vdr:MODE, dense, hybrid, cross; combine with +."
        ),
    ] = "bm25,vdr,dense,hybrid",
    run: Annotated[list[Path] | None, typer.Option(help="A TREC run file to measure too; may be repeated.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Largest number of queries, taken evenly spread; by default all.")
    ] = None,
    rerank_ms: Annotated[
        float, typer.Option(min=1, help="Time budget for re-ranking one query, in milliseconds.")
    ] = 10_000,
    baseline: Annotated[
        str | None,
        typer.Option(
            help="The system, or run file without its suffix, to compare with; by default the best but hybrid."
        ),
    ] = None,
    generation: GenerationOption = None,
    per_query: Annotated[Path | None, typer.Option(help="Write the measures of every query to this TSV file.")] = None,
    write_runs: Annotated[
        Path | None, typer.Option(help="Write each system's ranking to a TREC run file in this folder.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Write a bar chart of the measures to this PNG file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure retrieval systems on judged queries, with paired significance tests."""
    with reported(as_json), opened() as app, progress(as_json) as bars:
        from hyblink.app.evaluation.charts import plot as draw
        from hyblink.app.evaluation.runs import write_per_query
        from hyblink.app.evaluation.runs import write_run as write_trec
        from hyblink.app.operations.evaluation import evaluate as measured

        found = measured(
            app,
            folder,
            split,
            collection=collection,
            systems=systems.split(",") if systems else (),
            runs=run or (),
            limit=limit,
            rerank_ms=rerank_ms,
            generation=generation,
            baseline=baseline,
            progress=bars,
        )
        if per_query:
            write_per_query(per_query, {result.name: result.per_query for result in found.results})
        if write_runs:
            write_runs.mkdir(parents=True, exist_ok=True)
            for result in found.results:
                write_trec(write_runs / f"{result.name}.run", result.run, result.name)
        if plot:
            draw(found.results, plot, f"{found.folder} {split} ({found.queries} queries)")
        shown = {
            "folder": found.folder,
            "split": found.split,
            "queries": found.queries,
            "generation": found.generation,
            "systems": {result.name: result.mean for result in found.results},
            "comparisons": found.comparisons,
            "notes": found.notes,
        }
    answer(shown, as_json, lambda: _table(found))


def _table(found: Evaluation) -> Iterator[str]:
    from hyblink.app.evaluation.systems import MEASURES

    yield f"{found.folder} {found.split}: {found.queries} queries"
    yield f"{'system':14}" + "".join(f"{name:>13}" for name in MEASURES)
    for result in found.results:
        yield f"{result.name:14}" + "".join(f"{result.mean[name]:13.4f}" for name in MEASURES)
    for c in found.comparisons:
        yield (
            f"{c.system} against {c.baseline}: nDCG@10 {c.difference:+.4f}, "
            f"t-test p = {c.p_t_test:.4g}, randomisation p = {c.p_randomisation:.4g}"
        )
    for note in found.notes:
        yield f"note: {note}"


def tune(
    folder: Annotated[Path, typer.Argument(help="A BEIR folder: queries.jsonl and qrels/SPLIT.tsv.")],
    split: Annotated[str, typer.Option(help="The split: reads qrels/SPLIT.tsv.")] = "train",
    collection: CollectionOption = "default",
    folds: Annotated[int, typer.Option(min=2, help="Number of folds of the cross-validation.")] = 5,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Largest number of queries, sampled at random; by default all.")
    ] = None,
    rerank: Annotated[
        int,
        typer.Option(
            min=0, help="Tune the cross-encoder's weight too, on this many documents per query; 0: do not re-rank."
        ),
    ] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Report the result, but do not save the profile.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Tune fusion weights on judged queries, and save them as the collection's next ranking profile."""
    with reported(as_json), opened() as app, progress(as_json) as bars:
        from hyblink.app.operations.evaluation import tune_profile, tuned_as_json

        found = tune_profile(
            app,
            folder,
            split,
            collection=collection,
            folds=folds,
            limit=limit,
            rerank=rerank,
            save=not dry_run,
            progress=bars,
        )
        shown = tuned_as_json(found)
    profile = found.profile
    weights = ", ".join(f"{s.value} {w:g}" for s, w in profile.weights.items())
    first = f"profile {profile.version}: {profile.fusion}, {profile.normalization}, {weights}"
    answer(shown, as_json, [first, profile.origin])
