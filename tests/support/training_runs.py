"""Training of tiny models: configurations, data, runs in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support import processes
from support.training import tiny_model, tiny_rows_file

from hyblink.training.recipes import recipe
from hyblink.training.run_config import RunConfig

WORKER = Path(__file__).parents[1] / "training" / "train_worker.py"


ROOT = Path(__file__).resolve().parents[2]


SMALL = {"steps": "12", "batch": "4", "negatives": "2", "checkpoint_every": "3", "learning_rate": "0.002"}


KINDS: dict[str, dict[str, str]] = {
    "dense": {},
    "distil": {},
    "vdr": {"tuning": "full", "precision": "fp32", "query_top_k": "8"},
    "svdr": {"tuning": "lora", "precision": "fp32", "lora_rank": "4", "contrastive_mask": "0.1", "flops": "0.001"},
    "vdr_head": {"head_learning_rate": "0.01"},
    "cross_encoder": {"lora_rank": "4", "frozen_layers": "0", "dropout": "true"},
    "blink_bi": {"lora_rank": "4", "frozen_layers": "0", "negatives": "0"},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Without dropout: what a batch is divided into then makes no difference."""
    return tiny_model(tmp_path_factory.mktemp("still"), dropout=0.0)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_rows_file(tmp_path_factory.mktemp("data"))


def config(name: str, base: Path, **changes: str) -> RunConfig:
    return recipe(name, {"base": str(base), **SMALL, **KINDS.get(name, {}), **changes})


def worker(
    base: Path, data: Path, out: Path, name: str, changes: dict[str, str], **environment: str
) -> processes.Process:
    command = [sys.executable, str(WORKER), str(base), str(data), str(out), name, json.dumps(changes)]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    environment = {**os.environ, "PYTHONPATH": paths, **environment}
    return processes.start(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def ended(process: processes.Process) -> tuple[int, list[str], str]:
    """Exit status, lines printed, and the end of what went to standard error."""
    output, errors = process.communicate(timeout=300)
    return process.returncode, output.splitlines(), errors[-2000:]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for path in sorted(folder.rglob("*.safetensors")):
        found |= {f"{path.relative_to(folder)}:{name}": tensor for name, tensor in load_file(path).items()}
    return found
