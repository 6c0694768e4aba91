"""Extension modules. Importing one registers its signals, file formats, model families, recipes or API routes."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

from hyblink.app.core.errors import InvalidInputError


def load_extensions(modules: Sequence[str]) -> None:
    """Import the extension modules. Raises InvalidInputError, with the cause, if one cannot be imported."""
    for name in modules:
        try:
            import_module(name)
        except Exception as error:
            raise InvalidInputError(
                "an extension cannot be imported",
                received=f"{name} ({type(error).__name__}: {error})",
                expected="a module on the Python path; see the setting `extensions`",
            ) from error
