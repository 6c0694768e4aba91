"""Runs commands as if only the distributions of some extras were installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
ALONE = {"weights"}
"""Extras whose packages are installed without what they require."""
_BLOCK = """
import json, os, sys

blocked = set(json.loads(os.environ["HYBLINK_TEST_BLOCKED"]))


class Without:
    def __init__(self, finder):
        self._finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in blocked else self._finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self._finder, name)


sys.meta_path[:] = map(Without, sys.meta_path)
"""


def distributions(*extras: str) -> set[str]:
    """The distributions that an installation with these extras has."""
    found: set[str] = set()
    seen: set[tuple[str, str]] = set()
    waiting = [("hyblink", ",".join(extras))]
    while waiting:
        name, own = waiting.pop()
        key = canonicalize_name(name)
        if (key, own) in seen:
            continue
        seen.add((key, own))
        found.add(key)
        try:
            needed = [Requirement(line) for line in requires(name) or ()]
        except PackageNotFoundError:
            continue
        for requirement in needed:
            named = [
                extra
                for extra in ("", *own.split(","))
                if requirement.marker is None or requirement.marker.evaluate({"extra": extra})
            ]
            if named and set(named) <= ALONE:
                found.add(canonicalize_name(requirement.name))
            elif named:
                waiting.append((requirement.name, ",".join(sorted(requirement.extras))))
    return found


def blocked(*extras: str) -> list[str]:
    """The modules of this environment that an installation with these extras lacks."""
    have = distributions(*extras)
    return [
        module for module, names in packages_distributions().items() if not {canonicalize_name(n) for n in names} & have
    ]


def environment(folder: Path, without: Sequence[str]) -> dict[str, str]:
    """The environment of a process, and of those that it starts, in which modules cannot be imported."""
    beside = folder / "blocked"
    beside.mkdir(exist_ok=True)
    (beside / "sitecustomize.py").write_text(_BLOCK)
    paths = os.pathsep.join([str(beside), str(ROOT)])
    return {
        **os.environ, "PYTHONPATH": paths, "HYBLINK_TEST_BLOCKED": json.dumps(list(without)),
        "HYBLINK_DATA_DIR": str(folder / "data"),
    }  # fmt: skip


def hyblink(folder: Path, without: Sequence[str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command of hyblink in `folder` without some modules."""
    return subprocess.run(
        [sys.executable, "-m", "hyblink", *arguments],
        env=environment(folder, without), cwd=folder, capture_output=True, text=True,
    )  # fmt: skip
