"""The wheel: one name, everything that is needed in it, whatever the project that it is used in calls its own folders."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("app", "indexer", "ranker", "training", "ui", "opensearch", "hyblink")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, unpacked as an installer does."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    ignored = shutil.ignore_patterns("__pycache__", "target")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=ignored)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source / name)
    build = "from setuptools.build_meta import build_wheel; import sys; print(build_wheel(sys.argv[1]))"
    made = subprocess.run(
        [sys.executable, "-c", build, str(folder)], cwd=source, capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stdout + made.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(folder / "site")
    return folder / "site"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Somebody's project with folders of the names that ours have."""
    for name in ("app", "ui", "training"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise AssertionError('{name} of the project was imported')\n")
    (tmp_path / "notes.jsonl").write_text('{"id": "a", "text": "the blue whale"}\n')
    return tmp_path


def run(installed: Path, project: Path, *arguments: str) -> str:
    # The packages of this environment are there, the links to this checkout are not: PYTHONPATH reads no .pth files.
    packages = sysconfig.get_paths()["purelib"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(installed), packages])}
    bare = [str(Path(sys.base_prefix) / "bin" / "python3"), *arguments]
    done = subprocess.run(bare, cwd=project, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_holds_one_name(installed: Path) -> None:
    assert sorted(one.name for one in installed.iterdir() if not one.name.endswith(".dist-info")) == ["hyblink"]
    (scripts,) = installed.glob("*.dist-info/entry_points.txt")
    assert "hyblink = hyblink.app.cli.main:main" in scripts.read_text()


def test_what_is_no_code_is_in_it(installed: Path) -> None:
    inside = installed / "hyblink"
    for kept in (
        "app/demo/link_profile.json", "opensearch/node/pom.xml", "opensearch/plugin/pom.xml", "opensearch/Dockerfile",
        "app/encoders/weights/late-minilm/model.safetensors", "ui/streamlit_app.py", "app/py.typed",
    ):  # fmt: skip
        assert (inside / kept).is_file(), kept
    there = {path.relative_to(ROOT / "opensearch") for path in (ROOT / "opensearch" / "plugin" / "src").rglob("*.java")}
    assert there == {path.relative_to(inside / "opensearch") for path in (inside / "opensearch").rglob("*.java")}
    assert list((inside / "opensearch" / "templates").glob("*.json"))


def test_it_works_in_a_project_with_an_app_of_its_own(installed: Path, project: Path) -> None:
    where = run(installed, project, "-c", "import hyblink.app; print(hyblink.app.__file__)")
    assert Path(where.strip()).is_relative_to(installed)
    assert "1 documents (1 new" in run(installed, project, "-m", "hyblink", "ingest", "notes.jsonl", "--no-dense")
    assert "the blue whale" in run(installed, project, "-m", "hyblink", "search", "whale")
    assert "Maven fetches" in " ".join(run(installed, project, "-m", "hyblink", "node", "start", "--help").split())
    poms = "from hyblink.app.engines.opensearch.local.assemble import POM; print(POM.is_file())"
    assert run(installed, project, "-c", poms).strip() == "True"
