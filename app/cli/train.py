"""`hyblink train`, `hyblink mine`, `hyblink audit` and `hyblink models`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hyblink.app.cli.console import emit, note, opened, parse_pairs, progress, reported, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hyblink.app.application import App
    from hyblink.training.registry import ModelRegistry

models_cli = typer.Typer(help="Trained models: list, show, compare, promote, rollback.", no_args_is_help=True)
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def train(
    recipe: Annotated[
        str, typer.Argument(help="vdr, svdr, vdr_head, dense, dense_e5, dense_bge, distil, cross_encoder, blink_….")
    ],
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
            task = bars.add_task("steps", total=config.steps, rate="")

            def advance(step: int, loss: float) -> None:
                bars.update(task, completed=step, rate=f"loss {loss:.4f}")

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
        if as_json:
            emit(manifest)
        elif manifest:
            metrics = manifest["metrics"]
            say(
                f"{out}: {metrics['steps']} steps over {metrics['rows']} rows in {time.perf_counter() - started:.0f} s, "
                f"loss {metrics['loss_first']:.4f} → {metrics['loss_last']:.4f}, best dev MRR@10 {metrics['best_dev']}"
            )


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
    with reported(as_json), opened() as app:
        import random
        from dataclasses import replace

        from hyblink.app.core.errors import ConflictError
        from hyblink.training.data.rows import read_rows, write_jsonl
        from hyblink.training.negatives import mining as ng

        if out.exists():
            raise ConflictError("the file exists already", received=str(out), expected="a new file")
        mining = ng.Mining(first_rank, last_rank, keep, absolute_margin, relative_margin)
        rows = read_rows(data, split)
        if limit and limit < len(rows):
            rows = [rows[at] for at in sorted(random.Random(0).sample(range(len(rows)), limit))]
        rows = [replace(row, negatives=()) for row in rows]
        found = _source(app, data, collection, source, [row.query for row in rows])
        with progress(as_json) as bars:
            task = bars.add_task("rows", total=len(rows), rate="")
            mined = ng.mine(rows, found, mining, scores=scores, progress=lambda n: bars.advance(task, n))
        if judge is not None:
            mined = ng.filtered(mined, _judge(app, judge), judge_margin)
        write_jsonl(out, mined)
        count = sum(len(row.negatives) for row in mined)
        report = {
            "rows": len(mined),
            "negatives": count,
            "rows_without": sum(not row.negatives for row in mined),
            "rows_with_scores": sum(bool(row.positive_scores) for row in mined),
        }
        emit(report) if as_json else say(f"{out}: {report['rows']} rows, {count} negatives")


def _source(app: App, data: Path, collection: str | None, source: str, queries: Sequence[str]) -> Any:
    from hyblink.app.analysis.analyzer import Analyzer
    from hyblink.app.cli.main import warm_queries
    from hyblink.app.core.errors import InvalidInputError
    from hyblink.app.evaluation.systems import systems_from
    from hyblink.training.data.rows import read_corpus
    from hyblink.training.negatives.mining import OfflineBm25, RandomPool
    from hyblink.training.negatives.sources import CollectionSource

    if collection is not None and source != "random":
        signals = systems_from([source])[source].signals
        warm_queries(app, collection, list(queries))
        return CollectionSource(app.search, collection, signals, source)
    if source not in {"bm25", "random"}:
        raise InvalidInputError(
            "this source needs a collection", received=source, expected="--collection NAME, or bm25 or random"
        )
    corpus = list(read_corpus(data).values())
    return RandomPool(corpus) if source == "random" else OfflineBm25(corpus, Analyzer("english").terms)


def _judge(app: App, model: str) -> Any:
    import math

    from hyblink.app.encoders.reranker import Reranker

    encoder = (
        app.encoders.cross()
        if model == "default"
        else Reranker(model, app.settings.encode, app.settings.data_dir / "onnx")
    )
    encoder.load()
    return lambda query, texts: encoder.score(query, [("", text) for text in texts], math.inf).tolist()


def audit(
    data: Annotated[Path, typer.Argument(help="Rows with negatives.")],
    judge: Annotated[str, typer.Option(help="A cross-encoder by hub name or folder.")] = "default",
    sample: Annotated[int, typer.Option(min=1, help="Rows that are judged.")] = 200,
    as_json: JsonOption = False,
) -> None:
    """What share of the negatives a cross-encoder would call right answers."""
    with reported(as_json), opened() as app:
        from dataclasses import asdict

        from hyblink.training.data.rows import read_rows
        from hyblink.training.negatives import mining as ng

        found = ng.audit(read_rows(data), _judge(app, judge), sample=sample)
        if as_json:
            emit({**asdict(found), "share": found.share})
            return
        say(
            f"{found.false_negatives} of {found.negatives} negatives of {found.rows} rows look like answers ({found.share:.1%})"
        )
        for name, (seen, wrong) in sorted(found.by_source.items()):
            say(f"  {name}: {wrong} of {seen}")
        for query, text, origin, above in found.worst[:5]:
            say(f"  {above:+.2f} [{origin}] {query!r} → {text[:100]!r}")


def _registry() -> ModelRegistry:
    from hyblink.app.core.settings import Settings
    from hyblink.training.registry import ModelRegistry

    return ModelRegistry(Settings().models_dir)


@models_cli.command("list")
def models_list(as_json: JsonOption = False) -> None:
    """Every trained model."""
    with reported(as_json):
        registry = _registry()
        promoted = {names[-1] for names in registry.promoted().values() if names}
        shown = {name: registry.show(name, checksums=False) for name in registry.names()}
        if as_json:
            emit([{**manifest, "promoted": name in promoted} for name, manifest in shown.items()])
        for name, manifest in {} if as_json else shown.items():
            mark = "*" if name in promoted else " "
            say(
                f"{mark} {name}  {manifest['kind']}  {manifest['recipe']}  dev {manifest['metrics'].get('best_dev')}  {manifest['created']}"
            )


@models_cli.command("show")
def models_show(name: str) -> None:
    """A model's manifest, after checking its files."""
    with reported(True):
        emit(_registry().show(name))


@models_cli.command("compare")
def models_compare(one: str, other: str) -> None:
    """What differs between two models."""
    with reported(True):
        emit(_registry().compare(one, other))


@models_cli.command("promote")
def models_promote(name: str) -> None:
    """Record a model as the one of its kind. It switches no vectors: that is what a new generation does."""
    with reported():
        say(f"{name} is the promoted {_registry().promote(name)} now")


@models_cli.command("rollback")
def models_rollback(kind: str) -> None:
    """Record the model that was promoted before."""
    with reported():
        say(f"{_registry().rollback(kind)} is the promoted {kind} again")


@models_cli.command("export")
def models_export(
    model: Annotated[str, typer.Argument(help="A folder that training made, a hub name or `package:NAME`.")],
    out: Annotated[Path, typer.Option("--out", help="The folder to make: model.onnx, tokenizer.json, manifest.json.")],
    kind: Annotated[str, typer.Option(help="vdr, dense or cross, where the model has no manifest of ours.")] = "",
    int8: Annotated[bool, typer.Option("--int8", help="Quantise matrix products.")] = False,
) -> None:
    """Write a model as ONNX, for servers without Python."""
    with reported(True):
        from hyblink.app.encoders.runtimes.export import export

        emit(export(model, out, kind=kind, int8=int8))
