"""README's figures: from a fresh clone in an empty home to the first answer, and what is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import psutil

from tests.benchmarks.timing import table

ROOT = Path(__file__).resolve().parents[2]


def _megabytes(folder: Path) -> float:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir()) / 1e6


def _service(clone: Path, environment: dict[str, str]) -> float:
    """The memory of a service with every shipped model loaded, in MB (its own, without its worker)."""
    script = (
        "import time\n"
        "from hyblink.app.core.settings import Settings\n"
        "from hyblink.app.core.types.linking import MentionContext\n"
        "from hyblink.app.bootstrap import build\n"
        "from hyblink.app.encoders.vdr.adapter import DEFAULT, VdrAdapter\n"
        "app = build(Settings())\n"
        "pool = app.encoders\n"
        "VdrAdapter(DEFAULT, passage_weights=256).with_dense(pool.default_dense).encode_query('swift')\n"
        "pool.cross().score('q', [('', 'passage ' * 100)], time.perf_counter() + 99)\n"
        "pool.entity_cross().load()\n"
        "pool.span_detector('elq').detect(['The swift sleeps.'])\n"
        "from hyblink.app.encoders.mention.tower import DEFAULT as TOWER, MentionTower\n"
        "MentionTower(TOWER, app.settings.encode).encode([MentionContext('a', 'swift', 'b')])\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    command = [str(clone / ".venv" / "bin" / "python"), "-c", script]
    with subprocess.Popen(command, cwd=clone, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        memory = float(psutil.Process(process.pid).memory_full_info().pss) / 1e6
        process.kill()
    return memory


def run(_data: Path, _work: Path, _passages: int) -> None:
    folder = Path(tempfile.mkdtemp())
    clone, home = folder / "clone", folder / "home"
    home.mkdir()
    environment = {**os.environ, "HOME": str(home)}
    for name in ("XDG_CACHE_HOME", "PYTHONPATH", "VIRTUAL_ENV"):
        environment.pop(name, None)
    try:
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        started = time.perf_counter()
        subprocess.run(["make", "light"], cwd=clone, env=environment, check=True, stdout=subprocess.DEVNULL)
        installed = time.perf_counter() - started
        subprocess.run(
            ["make", "demo", "ARGS=--check"], cwd=clone, env=environment, check=True, stdout=subprocess.DEVNULL
        )
        whole = time.perf_counter() - started
        table(
            ["from a fresh clone, empty home", ""],
            [
                ["make light, s", installed],
                ["make demo ARGS=--check with it, s", whole],
                ["installed, MB", _megabytes(clone / ".venv")],
                ["a process with every shipped model, MB (PSS)", _service(clone, environment)],
            ],
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
