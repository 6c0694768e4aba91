"""Examples in docstrings run."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import hyblink


def modules() -> list[str]:
    found = []
    for module in pkgutil.walk_packages(hyblink.__path__, "hyblink."):
        if module.name not in {"hyblink.ui.streamlit_app", "hyblink.__main__"}:
            found.append(module.name)
    return found


@pytest.mark.parametrize("name", modules())
def test_doctests(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0
