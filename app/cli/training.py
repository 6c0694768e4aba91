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
    data: Annotated[list[Path], typer.Option("--data", help="BEIR folder, .jsonl, .json (DPR) or .tsv (DuReader).")],
    out: Annotated[Path, typer.Option("--out", help="The folder to make; its name is the model's.")],
    split: Annotated[str, typer.Option(help="Which qrels of BEIR folders.")] = "train",
    dev: Annotated[Path | None, typer.Option(help="Rows to look at while training; never trained on.")] = None,
    dev_split: Annotated[str, typer.Option(help="Which qrels of a BEIR folder as dev.")] = "dev",
    dev_limit: Annotated[int, typer.Option(min=1, help="Only so many dev rows.")] = 200,
    changes: Annotated[list[str] | None, typer.Option("--set", help="An option of the recipe, key=value.")] = None,
    work: Annotated[Path | None, typer.Option(help="Where checkpoints are kept; by default beside the model.")] = None,
    parent: Annotated[str, typer.Option(help="The model that this one continues, for its manifest.")] = "",
    entities: Annotated[
        list[Path] | None,
        typer.Option("--entities", help="Entities' vectors from `hyblink kb export-vectors` (blink_bi, elq)."),
    ] = None,
    go_on_from: Annotated[
        Path | None, typer.Option("--from", help="An earlier adapter or VDR head of the same form to begin with.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Train a model by a recipe. A run that was cut short goes on where it stopped when it is started again."""
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
                parent=parent or ("" if go_on_from is None else go_on_from.name),
                entities=entities or (),
                go_on_from=go_on_from,
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
    data: Annotated[Path, typer.Argument(help="Rows that want negatives: a BEIR folder, .jsonl, .json or .tsv.")],
    out: Annotated[Path, typer.Option("--out", help="The .jsonl to write.")],
    collection: Annotated[
        str | None,
        typer.Option("--collection", "-c", help="Search this collection; else rank-bm25 over the BEIR corpus."),
    ] = None,
    source: Annotated[str, typer.Option(help="bm25, vdr, dense, hybrid, legs joined by +, or random.")] = "hybrid",
    split: Annotated[str, typer.Option(help="Which qrels of a BEIR folder.")] = "train",
    keep: Annotated[int, typer.Option(min=1, help="Negatives of a row.")] = 16,
    first_rank: Annotated[int, typer.Option(min=1, help="The first rank that is taken.")] = 1,
    last_rank: Annotated[int, typer.Option(min=1, max=1000, help="The last one.")] = 100,
    absolute_margin: Annotated[float, typer.Option(min=0, help="How far below the positive's score.")] = 0.0,
    relative_margin: Annotated[float, typer.Option(min=0, max=1, help="Largest share of the positive's score.")] = 0.0,
    scores: Annotated[bool, typer.Option("--scores", help="Keep the source's scores as a teacher's.")] = False,
    judge: Annotated[str | None, typer.Option(help="A cross-encoder that drops what it takes for an answer.")] = None,
    judge_margin: Annotated[float, typer.Option(help="How far below the positive it must put a negative.")] = 0.0,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many rows, drawn at random.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Mine hard negatives for training rows, each with where it comes from."""
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
    data: Annotated[Path, typer.Argument(help="Rows with negatives.")],
    judge: Annotated[str, typer.Option(help="A cross-encoder by hub name or folder.")] = "default",
    sample: Annotated[int, typer.Option(min=1, help="Rows that are judged.")] = 200,
    as_json: JsonOption = False,
) -> None:
    """What share of the negatives a cross-encoder would call right answers."""
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
