"""Help texts that list registered formats, signals and recipes.

They are built when help is shown, so that they include what extensions register.
"""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

from hyblink.app.cli.options import FORMAT_HELP, RECIPES_HELP, SIGNALS_HELP


def _formats() -> str:
    from hyblink.indexer.readers.formats import FORMATS

    return f"{', '.join(FORMATS)}; by default what the file's name says."


def _signals() -> str:
    from hyblink.ranker.signals.registry import proposing

    return f"Comma-separated: {','.join(proposing())}."


def _recipes() -> str:
    from hyblink.training.recipes import RECIPES

    return f"{', '.join(RECIPES)}."


_LATE = {FORMAT_HELP: _formats, RECIPES_HELP: _recipes, SIGNALS_HELP: _signals}


class LateHelpCommand(TyperCommand):
    """A command whose options may use a placeholder as help text, replaced by a list of what is registered."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        from hyblink.app.core.extensions import load_extensions
        from hyblink.app.core.settings import Settings

        load_extensions(Settings().extensions)
        for parameter in self.params:
            text = getattr(parameter, "help", None)
            if text in _LATE:
                parameter.help = _LATE[text]()  # type: ignore[attr-defined]
        super().format_options(ctx, formatter)
