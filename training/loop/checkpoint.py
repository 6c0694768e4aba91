"""Checkpoints of a training run, written atomically: one folder each, with a manifest of SHA-256 checksums.

They hold safetensors and JSON only. A resumed run ends with the same weights as an uninterrupted one. The state of
random generators is not needed, because the sample of a step depends only on the seed and the step number.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from hyblink.app.core.errors import CorruptionError, InvalidInputError
from hyblink.app.core.manifest import check_manifest, read_json, sync_directory, write_json, write_manifest

log = logging.getLogger(__name__)
FORMAT = 1
KEPT = 2
_MODEL = "model.safetensors"
_NAME = re.compile(r"checkpoint-(\d+)$")


@dataclass(frozen=True, slots=True)
class RunState:
    """The progress of a run: finished steps, loss of each step, dev metric as (step, value), and the best dev value.

    `evaluations_without_gain` counts evaluations since the best one, for early stopping.
    """

    step: int
    losses: tuple[float, ...] = ()
    dev: tuple[tuple[int, float], ...] = ()
    best: float = float("-inf")
    evaluations_without_gain: int = 0


def save(
    folder: Path, state: RunState, run: str, parameters: Mapping[str, torch.Tensor], optimizer: torch.optim.Optimizer
) -> None:
    """Write `folder/checkpoint-<step>` and delete all but the newest two.

    `run` identifies configuration and data, so that another run does not resume from it.
    """
    names = {id(tensor): name for name, tensor in parameters.items()}
    moments = {
        f"{names[id(tensor)]}/{key}": value.detach().cpu().contiguous()
        for tensor, values in optimizer.state.items()
        for key, value in values.items()
        if isinstance(value, torch.Tensor)
    }
    final = folder / f"checkpoint-{state.step}"
    beside = folder / f".{final.name}.{os.getpid()}.tmp"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    _write_weights(beside, parameters)
    save_file(moments, beside / "optimizer.safetensors")
    write_json(
        beside / "state.json",
        {
            "step": state.step,
            "losses": state.losses,
            "dev": state.dev,
            "best": state.best if state.best > float("-inf") else None,
            "looks_without_gain": state.evaluations_without_gain,
        },
    )
    write_manifest(beside, [_MODEL, "optimizer.safetensors", "state.json"], format=FORMAT, run=run)
    shutil.rmtree(final, ignore_errors=True)
    beside.rename(final)
    sync_directory(folder)
    for _, path in _all(folder)[:-KEPT]:
        shutil.rmtree(path, ignore_errors=True)


def save_best_weights(folder: Path, parameters: Mapping[str, torch.Tensor], run: str = "") -> None:
    """Save weights into `folder`, replacing those saved there before. Used for the best weights and for ANCE."""
    beside = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    _write_weights(beside, parameters)
    write_manifest(beside, [_MODEL], format=FORMAT, run=run)
    shutil.rmtree(folder, ignore_errors=True)
    beside.rename(folder)
    sync_directory(folder.parent)


def load_best_weights(folder: Path, parameters: Mapping[str, torch.Tensor], run: str = "") -> None:
    """Load the weights saved by `save_best_weights` into the parameters, in place.

    Raises CorruptionError if they are missing, damaged or of another run.
    """
    try:
        kept = check_manifest(folder).get("run")
    except FileNotFoundError as error:
        raise CorruptionError("kept weights are missing", received=folder.name) from error
    if kept != run:
        raise CorruptionError("kept weights are of another run", received=folder.name)
    _copy(load_file(folder / _MODEL), parameters)


def _write_weights(folder: Path, parameters: Mapping[str, torch.Tensor]) -> None:
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in parameters.items()}, folder / _MODEL)


def _copy(weights: Mapping[str, torch.Tensor], parameters: Mapping[str, torch.Tensor]) -> None:
    with torch.no_grad():
        for name, tensor in parameters.items():
            tensor.copy_(weights[name])


def _all(folder: Path) -> list[tuple[int, Path]]:
    found = [(int(match.group(1)), path) for path in folder.glob("checkpoint-*") if (match := _NAME.search(path.name))]
    return sorted(found)


def load(
    folder: Path, run: str, parameters: Mapping[str, torch.Tensor], optimizer: torch.optim.Optimizer
) -> RunState | None:
    """Load the newest intact checkpoint into parameters and optimizer; returns its state, or None if there is none.

    A damaged checkpoint is logged and skipped. Raises CorruptionError if all are damaged, InvalidInputError if they
    belong to another run.
    """
    found = _all(folder)
    for _, path in reversed(found):
        try:
            manifest = check_manifest(path)
            if manifest.get("format") != FORMAT:
                raise CorruptionError(
                    "unknown checkpoint format", received=manifest.get("format"), expected=str(FORMAT)
                )
            if manifest.get("run") != run:
                raise InvalidInputError(
                    "the checkpoints belong to another run",
                    received=str(folder),
                    expected="the same recipe, options and data, or a new folder",
                )
            return _fill(path, parameters, optimizer)
        except (CorruptionError, FileNotFoundError, SafetensorError) as error:
            log.warning("skipping a damaged checkpoint %s: %s", path.name, error)
    if found:
        raise CorruptionError(
            "every checkpoint of the run is damaged",
            received=str(folder),
            expected="a whole one; delete them to start anew",
        )
    return None


def _fill(path: Path, parameters: Mapping[str, torch.Tensor], optimizer: torch.optim.Optimizer) -> RunState:
    weights = load_file(path / _MODEL)
    moments = load_file(path / "optimizer.safetensors")
    if set(weights) != set(parameters):
        raise CorruptionError(
            "the checkpoint has other parameters",
            received=sorted(weights)[:3],
            expected=", ".join(sorted(parameters)[:3]),
        )
    _copy(weights, parameters)
    for name, tensor in parameters.items():
        own = {key.rpartition("/")[2]: value for key, value in moments.items() if key.rpartition("/")[0] == name}
        if own:
            optimizer.state[tensor] = {
                key: value if key == "step" else value.to(tensor.device) for key, value in own.items()
            }
    raw: dict[str, Any] = read_json(path / "state.json")
    best = raw["best"] if raw["best"] is not None else float("-inf")
    dev = tuple((int(step), float(value)) for step, value in raw["dev"])
    return RunState(int(raw["step"]), tuple(raw["losses"]), dev, best, int(raw["looks_without_gain"]))
