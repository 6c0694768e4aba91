"""The shape of the code: file lengths, import circles, one name, and what the layer contracts cover."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("app", "indexer", "ranker", "training", "ui", "hyblink")
LONGEST = 500


def files(*folders: str) -> list[Path]:
    """Our Python files as they lie, links not followed."""
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py")) if path.is_file()]


def imports_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def circle(imports: dict[str, set[str]]) -> list[str]:
    """A circle among modules and what they import; empty where there is none."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_a_circle_is_found() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert sorted(set(circle({"a": {"b"}, "b": {"a"}}))) == ["a", "b"]


def test_there_are_no_import_circles() -> None:
    """Imports within functions and for type checkers count as well."""
    graph = grimp.build_graph("hyblink", cache_dir=None)
    assert len(graph.modules) > 200
    assert circle({name: graph.find_modules_directly_imported_by(name) for name in graph.modules}) == []


def test_no_file_is_long() -> None:
    found = {
        str(path.relative_to(ROOT)): count
        for path in files(*FOLDERS[:-1], "tests")
        if (count := len(path.read_text(encoding="utf-8").splitlines())) > LONGEST
    }
    assert found == {}


@pytest.mark.parametrize("folder", [*FOLDERS, "tests"])
def test_the_code_answers_to_one_name(folder: str) -> None:
    bare = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in files(folder)
        for name in imports_of(path)
        if name.split(".")[0] in FOLDERS[:-1]
    }
    assert bare == set()


def test_every_folder_of_code_is_linked_into_the_package() -> None:
    linked = {path.name: path.resolve() for path in (ROOT / "hyblink").iterdir() if path.is_symlink()}
    assert linked == {name: ROOT / name for name in (*FOLDERS[:-1], "opensearch")}
    with_code = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"hyblink", "tests"}
    assert with_code == set(FOLDERS[:-1])


def test_the_ui_imports_nothing_of_ours_but_itself() -> None:
    foreign = {name for path in files("ui") for name in imports_of(path) if re.match(r"hyblink\.(?!ui\b)", name)}
    assert foreign == set()


def test_a_file_in_a_new_place_breaks_the_layer_contract(tmp_path: Path) -> None:
    """The contracts are exhaustive: a package of app/ that no layer names is an error, not a gap."""
    settings = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert "exhaustive = true" in settings
    missing = settings.replace('"linking", ', "", 1)
    assert missing != settings
    (tmp_path / "pyproject.toml").write_text(missing, encoding="utf-8")
    command = [
        str(Path(sys.executable).with_name("lint-imports")),
        "--config",
        str(tmp_path / "pyproject.toml"),
        "--no-cache",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode, done.stdout
    assert "linking" in done.stdout
