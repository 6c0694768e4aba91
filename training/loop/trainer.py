"""The training loop: sampling, optimizer steps, evaluation on dev rows, early stopping, checkpoints.

It runs in one process, or in one process per GPU under torchrun. Then each process takes a share of the queries of a
step, in-batch negatives are shared between processes, and gradients are averaged.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from hyblink.app.core.errors import InvalidInputError
from hyblink.training.data.batches import draw
from hyblink.training.data.rows import Text, TrainingRow
from hyblink.training.families.base import Trainable
from hyblink.training.loop import checkpoint
from hyblink.training.loop.checkpoint import RunState
from hyblink.training.run_config import RunConfig

_SEED_STRIDE = 1_000_003


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended. `early` is True if it was stopped early because the dev metric no longer improved."""

    state: RunState
    early: bool


class NonFiniteLossError(InvalidInputError):
    """The loss became NaN or infinite, usually because of the learning rate, the data or the precision."""

    code = "non_finite_loss"


def world() -> tuple[int, int]:
    """(rank of this process, number of processes). Initialises the process group under torchrun; (0, 1) without it."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return 0, 1
    if not dist.is_initialized():
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    return dist.get_rank(), size


def rate(step: int, config: RunConfig) -> float:
    """The factor (0 to 1) on the peak learning rate: linear warm-up, then linear decay to 0 (Devlin et al. 2019)."""
    warm = max(1, round(config.warm_up * config.steps))
    if step < warm:
        return (step + 1) / warm
    return max(0.0, (config.steps - step) / max(1, config.steps - warm))


def train(
    model: Trainable,
    rows: Sequence[TrainingRow],
    config: RunConfig,
    work: Path,
    *,
    run: str,
    dev: Sequence[TrainingRow] = (),
    pool: Callable[[int], Sequence[Text]] = lambda _: (),
    progress: Callable[[int, float], None] = lambda _step, _loss: None,
    on_step: Callable[[int], None] = lambda _step: None,
) -> Outcome:
    """Train `model` in place, resuming from the newest checkpoint in `work` if there is one.

    With dev rows, the model ends with the weights of the best evaluation. `run` identifies configuration and data.
    `pool` returns mined negatives for a row index (see `draw`). `on_step` is called before each step, for example to
    refresh mined negatives. `progress` is called with the number of finished steps and the loss.

    Raises NonFiniteLossError if the loss is not finite, InvalidInputError if there is nothing to train or the number of
    processes does not divide the batch.
    """
    rank, size = world()
    if config.batch // config.accumulate % size:
        raise InvalidInputError(
            "the processes do not divide the batch", received=size, expected=f"a divisor of {config.batch}"
        )
    parameters = dict(model.parameters())
    if not parameters:
        raise InvalidInputError("nothing to train", received=config.tuning, expected="a model with trainable weights")
    work.mkdir(parents=True, exist_ok=True)
    optimizer = torch.optim.AdamW(
        [
            {"params": [tensor], "peak": model.learning_rate(name), "lr": 0.0,
             "weight_decay": config.weight_decay if tensor.ndim > 1 else 0.0}
            for name, tensor in parameters.items()
        ]
    )  # fmt: skip
    state = checkpoint.load(work, run, parameters, optimizer) or RunState(0)
    scaler = torch.amp.GradScaler("cuda", enabled=config.precision == "fp16" and torch.cuda.is_available())
    scaler.scale(torch.zeros(1, device="cuda") if scaler.is_enabled() else torch.zeros(1))
    model.train(True)
    early = bool(state.dev) and state.evaluations_without_gain >= config.patience
    for step in range(state.step, config.steps if not early else 0):
        on_step(step)
        loss = _step(model, rows, config, step, optimizer, parameters, pool, scaler, rank, size)
        if not math.isfinite(loss):
            raise NonFiniteLossError(
                f"the loss of step {step} is not a number",
                received=loss,
                expected=f"a finite loss; the last whole checkpoint is kept in {work.name}",
            )
        state = replace(state, step=step + 1, losses=(*state.losses, loss))
        progress(step + 1, loss)
        last = step + 1 == config.steps
        if dev and (last or (config.evaluate_every and (step + 1) % config.evaluate_every == 0)):
            state = _look(model, dev, state, parameters, work, rank, run)
            early = state.evaluations_without_gain >= config.patience
        if rank == 0 and (last or early or (step + 1) % config.checkpoint_every == 0):
            checkpoint.save(work, state, run, parameters, optimizer)
        if early:
            break
    model.train(False)
    if state.best > float("-inf"):
        checkpoint.load_best_weights(work / "best", parameters, run)
    return Outcome(state, early)


def _step(
    model: Trainable,
    rows: Sequence[TrainingRow],
    config: RunConfig,
    step: int,
    optimizer: torch.optim.Optimizer,
    parameters: Mapping[str, torch.nn.Parameter],
    pool: Callable[[int], Sequence[Text]],
    scaler: Any,
    rank: int,
    size: int,
) -> float:
    drawn = draw(rows, batch=config.batch, negatives=config.negatives, seed=config.seed, step=step, pool=pool)
    torch.manual_seed(config.seed * _SEED_STRIDE + step * size + rank)
    share = rate(step, config)
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * share
    optimizer.zero_grad(set_to_none=True)
    part = config.batch // config.accumulate
    own = part // size
    total = 0.0
    for first in range(0, config.batch, part):
        mine = drawn[first + rank * own : first + (rank + 1) * own]
        with _autocast(config):
            total += model.backward(mine, scaler.get_scale() / config.accumulate) / config.accumulate
    if size > 1:
        _average(parameters.values(), size)
        together = torch.tensor(total)
        dist.all_reduce(together)
        total = float(together) / size
    if not math.isfinite(total):
        return total
    scaler.unscale_(optimizer)
    torch.nn.utils.clip_grad_norm_(list(parameters.values()), config.clip)
    scaler.step(optimizer)
    scaler.update()
    return total


def _autocast(config: RunConfig) -> Any:
    if config.precision == "fp32":
        return nullcontext()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.autocast(
        device, dtype=torch.bfloat16 if config.precision == "bf16" or device == "cpu" else torch.float16
    )


def _average(parameters: Any, size: int) -> None:
    for tensor in parameters:
        if tensor.grad is None:
            tensor.grad = torch.zeros_like(tensor)
        dist.all_reduce(tensor.grad)
        tensor.grad /= size


def _look(
    model: Trainable,
    dev: Sequence[TrainingRow],
    state: RunState,
    parameters: Mapping[str, torch.nn.Parameter],
    work: Path,
    rank: int,
    run: str,
) -> RunState:
    model.train(False)
    with torch.no_grad():
        value = model.metric(dev)
    model.train(True)
    better = value > state.best
    if better and rank == 0:
        checkpoint.save_best_weights(work / "best", parameters, run)
    return replace(
        state,
        dev=(*state.dev, (state.step, value)),
        best=max(state.best, value),
        evaluations_without_gain=0 if better else state.evaluations_without_gain + 1,
    )
