"""Other users of a machine cannot read the data folder."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyblink.app.access.keys import KeyStore
from hyblink.app.bootstrap import build
from hyblink.app.core.settings import Settings
from hyblink.app.core.types.collections import CollectionSpec
from hyblink.app.operations.collections import ensure_collection


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def rights(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def filled(settings: Settings) -> None:
    app = build(settings)
    ensure_collection(app, CollectionSpec("c"))
    app.documents.bulk("c", [{"id": "1", "text": "alpha"}], encode=False)
    app.feedback.log_impressions("c", "a secret question", {"1": 1}, generation="g")
    KeyStore(app.catalog.records()).create("admin", "2026-01-01")
    app.close()


@pytest.mark.parametrize("existing", [False, True])
def test_the_data_folder_is_private(tmp_path: Path, existing: bool) -> None:
    data = tmp_path / "data"
    if existing:
        data.mkdir(mode=0o755)
    filled(Settings(data_dir=data))
    assert rights(data) == 0o700


def test_files_that_commands_write_are_private_too(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("alpha")
    for command in (["ingest", "a.txt", "--no-dense"], ["keys", "create", "--role", "admin"], ["search", "alpha"]):
        subprocess.run(
            [sys.executable, "-m", "hyblink.app.cli.main", *command], check=True, cwd=tmp_path, capture_output=True
        )
    files = [path for path in (tmp_path / ".hyblink").rglob("*") if path.is_file() and not path.is_symlink()]
    assert len(files) > 3
    assert {rights(path) & 0o077 for path in files} == {0}


def test_it_can_be_shared(tmp_path: Path) -> None:
    filled(Settings(data_dir=tmp_path / "data", private_data=False))
    assert rights(tmp_path / "data") == 0o755
