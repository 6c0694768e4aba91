"""Commands that only read are answered by the service on their data folder, and do their own work without one."""

from __future__ import annotations

import os
import re
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hyblink.app.application import App
from hyblink.app.cli.local_server import LocalService
from hyblink.app.cli.local_service import NAME
from hyblink.app.core.types.collections import CollectionSpec
from hyblink.app.core.types.documents import Document
from hyblink.app.linking.knowledge_base import entity_spec
from hyblink.app.operations.collections import ensure_collection

_LOADED = """
import sys
sys.argv = ["hyblink", *sys.argv[1:]]
from hyblink.app.cli.main import main
try:
    main()
finally:
    print(*sorted({"numpy", "tantivy", "torch", "faiss", "onnxruntime"} & set(sys.modules)), file=sys.stderr)
"""


def run(folder: Path, *arguments: str, given: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """`hyblink …` in a process of its own; the last line of its standard error names the heavy modules it loaded."""
    return subprocess.run(
        [sys.executable, "-c", _LOADED, *arguments],
        capture_output=True,
        text=True,
        input=given,
        env={**os.environ, "HYBLINK_DATA_DIR": str(folder), **environment},
        timeout=120,
    )


@pytest.fixture
def app(make_app: Callable[..., App]) -> App:
    made = make_app()
    ensure_collection(made, CollectionSpec("words", dense_encoder="none"))
    texts = {"a": "A hammer drives nails.", "b": "A screwdriver turns screws; no hammer needed.", "c": "Glue ‹dries›."}
    made.documents.upsert("words", [Document(key, key.upper(), text) for key, text in texts.items()])
    return made


@pytest.fixture
def served(app: App) -> Iterator[Path]:
    with LocalService(app):
        yield app.settings.data_dir


def without_times(text: str) -> str:
    return re.sub(r"\d+ ms|\"(total|\w+)\": [\d.e-]+|\"took_ms\": [\d.]+", "", text)


@pytest.mark.parametrize(
    "command",
    [
        ("search", "hammer", "-c", "words", "--explain"),
        ("search", "hammer", "-c", "words", "--why-not", "c"),
        ("get", "c", "-c", "words"),
        ("generations", "list", "-c", "words"),
        ("search", "hammer", "-c", "nowhere"),
    ],
)
def test_a_service_prints_what_the_command_would(app: App, command: tuple[str, ...]) -> None:
    folder = app.settings.data_dir
    alone = run(folder, *command)
    with LocalService(app):
        asked = run(folder, *command)
    assert without_times(asked.stdout) == without_times(alone.stdout)
    assert asked.returncode == alone.returncode
    first, *others, loaded = asked.stderr.splitlines()
    assert first == f"answered by the service on {folder} (process {os.getpid()})"
    assert others == alone.stderr.splitlines()[:-1]
    assert not loaded, "a command that asks loads nothing heavy"
    assert "tantivy" in alone.stderr or alone.returncode or command[0] != "search"


def test_only_its_user_may_connect(served: Path) -> None:
    mode = (served / NAME).stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


def test_texts_that_are_linked_travel(make_app: Callable[..., App], tmp_path: Path) -> None:
    app = make_app()
    ensure_collection(app, entity_spec("entities", dense_encoder="none"))
    app.entities.bulk("entities", [{"id": "Q1", "title": "Dresden", "description": "A city on the Elbe."}])
    with LocalService(app):
        asked = run(app.settings.data_dir, "link", "-", "--no-cross", given="We went to Dresden.")
    assert "answered by the service" in asked.stderr
    assert "11:18 'Dresden' → Q1 (Dresden)" in asked.stdout


def test_other_settings_are_not_answered_by_the_service(served: Path) -> None:
    asked = run(served, "search", "hammer", "-c", "words", HYBLINK_SEARCH__CANDIDATES="70")
    assert "does not answer this (its settings differ: search); this process does" in asked.stderr
    assert "tantivy" in asked.stderr
    assert "1. A" in asked.stdout
    quiet = run(served, "search", "hammer", "-c", "words", HYBLINK_API__LOCAL_SOCKET="false")
    assert "service" not in quiet.stderr
    assert "1. A" in quiet.stdout


def test_a_socket_that_nobody_serves_is_passed_over_and_replaced(app: App) -> None:
    folder = app.settings.data_dir
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(folder / NAME))
    left.close()
    alone = run(folder, "search", "hammer", "-c", "words")
    assert "1. A" in alone.stdout
    assert "service" not in alone.stderr
    with LocalService(app):
        assert "answered by the service" in run(folder, "get", "a", "-c", "words").stderr
    assert not (folder / NAME).exists()


def test_a_second_service_leaves_the_first_its_socket(app: App, served: Path, caplog: pytest.LogCaptureFixture) -> None:
    with LocalService(app):
        assert "another service on this data folder answers there" in caplog.text
    assert "answered by the service" in run(served, "get", "a", "-c", "words").stderr


def test_the_path_of_a_folder_may_be_long(make_app: Callable[..., App]) -> None:
    app = make_app("/".join(["a-folder-with-a-rather-long-name"] * 5))
    ensure_collection(app, CollectionSpec("words", dense_encoder="none"))
    app.documents.upsert("words", [Document("a", "", "A hammer.")])
    with LocalService(app):
        asked = run(app.settings.data_dir, "search", "hammer", "-c", "words")
    assert "answered by the service" in asked.stderr
    assert "[a]" in asked.stdout


def test_nonsense_on_the_socket_harms_nobody(served: Path) -> None:
    for nonsense in (b"\xff\n", b"[]\n", b"{}\n", b'{"protocol": 1, "command": "os.system"}\n', b"no end", b""):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(served / NAME))
            connection.sendall(nonsense)
            connection.shutdown(socket.SHUT_WR)
            assert b'"process"' not in connection.recv(4096)
    assert "answered by the service" in run(served, "get", "a", "-c", "words").stderr
