"""`hyblink models`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hyblink.app.cli.console import answer, emit, note, reported, say
from hyblink.app.cli.options import JsonOption

if TYPE_CHECKING:
    from hyblink.training.registry import ModelRegistry

models_cli = typer.Typer(help="Trained models: list, show, compare, promote, rollback.", no_args_is_help=True)


def _registry() -> ModelRegistry:
    from hyblink.app.core.settings import Settings
    from hyblink.training.registry import ModelRegistry

    return ModelRegistry(Settings().models_dir)


@models_cli.command("list")
def models_list(as_json: JsonOption = False) -> None:
    """List the trained models; promoted ones are marked."""
    with reported(as_json):
        registry = _registry()
        promoted = {names[-1] for names in registry.promoted().values() if names}
        shown = {name: registry.show(name, checksums=False) for name in registry.names()}
        lines = (
            f"{'*' if name in promoted else ' '} {name}  {manifest['kind']}  {manifest['recipe']}  "
            f"dev {manifest['metrics'].get('best_dev')}  {manifest['created']}"
            for name, manifest in shown.items()
        )
        answer([{**item, "promoted": name in promoted} for name, item in shown.items()], as_json, lines)


@models_cli.command("show")
def models_show(name: str) -> None:
    """Show a model's manifest as JSON, after checking its files."""
    with reported(True):
        emit(_registry().show(name))


@models_cli.command("compare")
def models_compare(item: str, other: str) -> None:
    """Show the differences between the manifests of two models as JSON."""
    with reported(True):
        emit(_registry().compare(item, other))


@models_cli.command("promote")
def models_promote(name: str) -> None:
    """Record a model as the preferred one of its kind. No collection changes: build a new generation for that."""
    with reported():
        say(f"{name} is the promoted {_registry().promote(name)} now")


@models_cli.command("rollback")
def models_rollback(kind: str) -> None:
    """Record the previously promoted model of a kind as the preferred one again."""
    with reported():
        say(f"{_registry().rollback(kind)} is the promoted {kind} again")


@models_cli.command("measure")
def models_measure(
    model: Annotated[str, typer.Argument(help="A folder of `hyblink train`, a Hugging Face name, or `package:NAME`.")],
    data: Annotated[list[Path], typer.Option("--data", help="A BEIR or linking folder; several may be given.")],
    split: Annotated[str, typer.Option(help="Split of the judgements.")] = "dev",
    documents: Annotated[int, typer.Option(min=100, help="Most documents or entities of a set.")] = 2000,
    queries: Annotated[int, typer.Option(min=10, help="Most queries or mentions of a set.")] = 200,
    out: Annotated[
        Path | None, typer.Option(help="Write the table to this file; by default into the trained model's manifest.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a model in every runtime and precision, and choose the one that it is served in."""
    with reported(as_json):
        from hyblink.app.core.settings import Settings
        from hyblink.app.operations.precision import Limits, keep_table, measure_precisions

        table = measure_precisions(model, Settings(), data, split, Limits(documents, queries), note)
        where = keep_table(model, table, out)
        answer(table, as_json, [f"{model} is served in {table['precision']}: {where}"])


@models_cli.command("export")
def models_export(
    model: Annotated[str, typer.Argument(help="A folder of `hyblink train`, a Hugging Face name, or `package:NAME`.")],
    out: Annotated[
        Path, typer.Option("--out", help="The folder to create, with model.onnx, tokenizer.json and manifest.json.")
    ],
    kind: Annotated[
        str, typer.Option(help="Kind of the model: vdr, dense or cross; needed if it has no hyblink manifest.")
    ] = "",
    int8: Annotated[bool, typer.Option("--int8", help="Quantise the matrix products to 8-bit integers.")] = False,
) -> None:
    """Export a model to ONNX, for servers without Python."""
    with reported(True):
        from hyblink.app.encoders.runtimes.export import export

        emit(export(model, out, kind=kind, int8=int8))
