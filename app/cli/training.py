"""`hyblink train`, `hyblink mine` and `hyblink audit`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hyblink.app.cli.console import answer, new_file, note, opened, parse_pairs, progress, reported
from hyblink.app.cli.options import RECIPES_HELP, JsonOption

if TYPE_CHECKING:
    from hyblink.training.negatives.mining import Audit


def train(
    recipe: Annotated[str, typer.Argument(help=RECIPES_HELP)],
    data: Annotated[
        list[Path],
        typer.Option(
            "--data",
            help="Training rows: a BEIR folder, .jsonl, .json (DPR) or .tsv (DuReader); may be repeated.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="The folder to create; its name is the model's name.")],
    split: Annotated[str, typer.Option(help="The split of BEIR folders: reads qrels/SPLIT.tsv.")] = "train",
    dev: Annotated[
        Path | None, typer.Option(help="Rows to evaluate on during training, in the same formats; by default none.")
    ] = None,
    dev_split: Annotated[str, typer.Option(help="The split of a BEIR folder given as --dev.")] = "dev",
    dev_limit: Annotated[int, typer.Option(min=1, help="Largest number of dev rows.")] = 200,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="Change an option of the recipe: key=value; may be repeated.")
    ] = None,
    work: Annotated[
        Path | None, typer.Option(help="Folder for checkpoints; by default a hidden folder beside the model.")
    ] = None,
    parent: Annotated[
        str, typer.Option(help="Name of the parent model to record in the manifest; by default the one of --from.")
    ] = "",
    entities: Annotated[
        list[Path] | None,
        typer.Option(
            "--entities",
            help="File of entity vectors from `hyblink kb export-vectors` (for blink_bi and elq); may be repeated.",
        ),
    ] = None,
    init_from: Annotated[
        Path | None,
        typer.Option("--from", help="Start from this earlier adapter or VDR head, which must match in form."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Train a model with a recipe. An interrupted run is resumed when the command is run again."""
    with reported(as_json):
        import time

        from hyblink.app.core.settings import Settings
        from hyblink.training.recipes import recipe as named
        from hyblink.training.run import train_model

        config = named(recipe, parse_pairs(changes, "--set"))
        started = time.perf_counter()
        with progress(as_json) as bars:
            tell, told = bars("steps", config.steps), 0

            def advance(step: int, loss: float) -> None:
                nonlocal told
                tell(step - told, f"loss {loss:.4f}")
                told = step

            manifest = train_model(
                config,
                data,
                out,
                split=split,
                dev=dev,
                dev_split=dev_split,
                dev_limit=dev_limit,
                work=work,
                cache=Settings().data_dir / "states",
                parent=parent or ("" if init_from is None else init_from.name),
                entities=entities or (),
                init_from=init_from,
                progress=advance,
                say=note,
            )
        if not manifest:
            return  # another process of the run writes the model
        metrics, seconds = manifest["metrics"], time.perf_counter() - started
        line = (
            f"{out}: {metrics['steps']} steps over {metrics['rows']} rows in {seconds:.0f} s, "
            f"loss {metrics['loss_first']:.4f} → {metrics['loss_last']:.4f}, best dev MRR@10 {metrics['best_dev']}"
        )
        answer(manifest, as_json, [line])


def mine(
    data: Annotated[Path, typer.Argument(help="Training rows: a BEIR folder, .jsonl, .json or .tsv.")],
    out: Annotated[Path, typer.Option("--out", help="The .jsonl file to write.")],
    collection: Annotated[
        str | None,
        typer.Option("--collection", "-c", help="Search this collection; by default the corpus of the BEIR folder."),
    ] = None,
    source: Annotated[
        str,
        typer.Option(
            help="What proposes negatives: bm25, vdr, dense, hybrid, signals joined by +, or random. "
            "Without --collection: bm25 or random."
        ),
    ] = "hybrid",
    split: Annotated[str, typer.Option(help="The split of a BEIR folder: reads qrels/SPLIT.tsv.")] = "train",
    keep: Annotated[int, typer.Option(min=1, help="Largest number of negatives of a row.")] = 16,
    first_rank: Annotated[int, typer.Option(min=1, help="The first rank to take negatives from.")] = 1,
    last_rank: Annotated[int, typer.Option(min=1, max=1000, help="The last rank to take negatives from.")] = 100,
    absolute_margin: Annotated[
        float, typer.Option(min=0, help="Smallest distance of a negative's score below the lowest positive's.")
    ] = 0.0,
    relative_margin: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Largest score of a negative as a share of the lowest positive's; 0: no limit."
        ),
    ] = 0.0,
    scores: Annotated[
        bool, typer.Option("--scores", help="Store the source's scores, as teacher scores for distillation.")
    ] = False,
    judge: Annotated[
        str | None,
        typer.Option(
            help="Cross-encoder that drops likely false negatives: a model name, a folder, or `default` (the setting)."
        ),
    ] = None,
    judge_margin: Annotated[
        float, typer.Option(help="How far below the lowest positive the judge must score a negative to keep it.")
    ] = 0.0,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Largest number of rows, sampled at random; by default all.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Mine hard negatives for training rows. Each negative records its source."""
    with reported(as_json), opened() as app, progress(as_json) as bars:
        from hyblink.app.operations.negatives import mine_negatives
        from hyblink.training.data.rows import write_jsonl
        from hyblink.training.negatives.mining import Mining

        new_file(out)
        mined = mine_negatives(
            app,
            data,
            Mining(first_rank, last_rank, keep, absolute_margin, relative_margin),
            split=split,
            collection=collection,
            source=source,
            scores=scores,
            judge=judge,
            judge_margin=judge_margin,
            limit=limit,
            progress=bars,
        )
        write_jsonl(out, mined)
        count = sum(len(row.negatives) for row in mined)
        report = {
            "rows": len(mined),
            "negatives": count,
            "rows_without": sum(not row.negatives for row in mined),
            "rows_with_scores": sum(bool(row.positive_scores) for row in mined),
        }
    answer(report, as_json, [f"{out}: {report['rows']} rows, {count} negatives"])


def audit(
    data: Annotated[Path, typer.Argument(help="Training rows with negatives, such as the output of `hyblink mine`.")],
    judge: Annotated[
        str, typer.Option(help="The cross-encoder: a Hugging Face name, a folder, or `default` for the setting.")
    ] = "default",
    sample: Annotated[int, typer.Option(min=1, help="Number of rows to score.")] = 200,
    as_json: JsonOption = False,
) -> None:
    """Estimate the share of false negatives: negatives that a cross-encoder scores as relevant."""
    with reported(as_json), opened() as app:
        from dataclasses import asdict

        from hyblink.app.operations.negatives import audit_negatives

        found = audit_negatives(app, data, judge, sample)
        answer({**asdict(found), "share": found.share}, as_json, lambda: _audited(found))


def _audited(found: Audit) -> Iterator[str]:
    yield (
        f"{found.false_negatives} of {found.negatives} negatives of {found.rows} rows look like answers "
        f"({found.share:.1%})"
    )
    for name, (seen, wrong) in sorted(found.by_source.items()):
        yield f"  {name}: {wrong} of {seen}"
    for query, text, origin, above in found.worst[:5]:
        yield f"  {above:+.2f} [{origin}] {query!r} → {text[:100]!r}"
