"""Fixtures shared by the ELQ tests."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hyblink.app.application import App
from hyblink.app.bootstrap import build
from hyblink.app.cli.main import cli
from hyblink.app.core.settings import LinkSettings, Settings
from hyblink.app.linking.knowledge_base import entity_spec
from hyblink.app.operations.collections import ensure_collection
from hyblink.app.operations.encoding import encode_now

ENTITIES = [
    {"id": "lisp", "title": "Lisp", "description": "A family of programming languages with many parentheses."},
    {"id": "unix", "title": "Unix", "description": "An operating system from Bell Labs."},
    {"id": "ftp", "title": "file transfer protocol", "description": "A protocol to copy files between hosts."},
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(data folder with an encoded knowledge base, folder of a span head overfitted to a few sentences)."""
    folder = tmp_path_factory.mktemp("elq")
    app = build(Settings(data_dir=folder / "data"))
    ensure_collection(app, entity_spec("kb"))
    app.entities.bulk("kb", ENTITIES, encode=False)
    encode_now(app, "kb")
    app.close()
    frames = ["she wrote it in {} last year", "the {} runs here", "we like {} and tea", "a book about {} is old"]
    rows = []
    for number, frame in enumerate(frames * 3):
        entity = ENTITIES[number % 3]
        start = frame.index("{")
        rows.append(
            {"id": str(number), "text": frame.format(entity["title"]), "label_id": [entity["id"]],
             "mentions": [[start, start + len(entity["title"])]], "ignore": [[0, 1]]}
        )  # fmt: skip
    data = folder / "texts.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run, environment = CliRunner(), {"HYBLINK_DATA_DIR": str(folder / "data")}
    made = run.invoke(
        cli, ["kb", "export-vectors", "-k", "kb", "--out", str(folder / "v.safetensors")], env=environment
    )
    assert made.exit_code == 0, made.output
    options = ["--set", "steps=40", "--set", "batch=6", "--set", "query_tokens=32", "--set", "head_learning_rate=0.02"]
    made = run.invoke(
        cli,
        ["train", "elq", "--data", str(data), "--entities", str(folder / "v.safetensors"), "--out", str(folder / "elq"),
         "--dev", str(data), *options, "--json"],
        env=environment,
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    assert json.loads(made.stdout)["metrics"]["best_dev"] > 0.9  # it must overfit the training sentences
    return folder / "data", folder / "elq"


@pytest.fixture
def app(trained: tuple[Path, Path]) -> App:
    """An application that detects and encodes mentions with the trained span head, without a cross-encoder."""
    data, head = trained
    made = build(Settings(data_dir=data, link=LinkSettings(span_head=str(head), mention_encoder="elq", rerank=False)))
    yield made
    made.close()
