"""Modules of other people that add signals, formats, families, recipes or routes: importing one registers them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

from hyblink.app.core.errors import InvalidInputError


def load_extensions(modules: Sequence[str]) -> None:
    """Import each module once. Raises InvalidInputError naming one that cannot be imported, and why."""
    for name in modules:
        try:
            import_module(name)
        except Exception as error:
            raise InvalidInputError(
                "an extension cannot be imported",
                received=f"{name} ({type(error).__name__}: {error})",
                expected="a module on the Python path; see the setting `extensions`",
            ) from error
