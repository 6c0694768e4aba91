"""`hyblink models`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hyblink.app.cli.console import answer, emit, reported, say
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
    """Every trained model."""
    with reported(as_json):
        registry = _registry()
        promoted = {names[-1] for names in registry.promoted().values() if names}
        shown = {name: registry.show(name, checksums=False) for name in registry.names()}
        lines = (
            f"{'*' if name in promoted else ' '} {name}  {manifest['kind']}  {manifest['recipe']}  "
            f"dev {manifest['metrics'].get('best_dev')}  {manifest['created']}"
            for name, manifest in shown.items()
        )
        answer([{**one, "promoted": name in promoted} for name, one in shown.items()], as_json, lines)


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
