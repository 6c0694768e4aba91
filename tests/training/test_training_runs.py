"""Runs: killed and resumed, distributed, stopped early; checkpoints, cached states, the registry of models."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from support.training import tiny_rows
from support.training_runs import KINDS, SMALL, config, ended, weights, worker

from hyblink.app.core.errors import ConflictError, CorruptionError, InvalidInputError
from hyblink.app.encoders.dense.backbone import Backbone
from hyblink.app.encoders.loading.in_torch import load_sentence_transformer
from hyblink.app.encoders.runtimes.torch_transformer import TorchTransformer
from hyblink.training.data.hidden_states import StateCache
from hyblink.training.loop import checkpoint
from hyblink.training.loop.trainer import NonFiniteLossError, rate
from hyblink.training.recipes import recipe
from hyblink.training.registry import ModelRegistry
from hyblink.training.run import train_model


@pytest.mark.parametrize(
    ("name", "more", "at"),
    [
        ("dense", {}, 7),
        ("vdr_head", {}, 7),
        ("cross_encoder", {}, 7),
        ("dense", {"refresh_every": "4"}, 9),  # after the next period has begun: the checkpoint is of the one before
        ("vdr_head", {"refresh_every": "5"}, 7),
    ],
)
def test_a_killed_run_goes_on_and_ends_with_the_same_weights(
    name: str, more: dict[str, str], at: int, base: Path, data: Path, tmp_path: Path
) -> None:
    changes = {**SMALL, **KINDS[name], "evaluate_every": "6", **more}
    status, expected, errors = ended(worker(base, data, tmp_path / "whole", name, changes, DEV=str(data)))
    assert status == 0, errors
    status, _, _ = ended(worker(base, data, tmp_path / "killed", name, changes, KILL_AT=str(at), DEV=str(data)))
    assert status == -signal.SIGKILL
    assert not (tmp_path / "killed").exists()
    status, lines, errors = ended(worker(base, data, tmp_path / "killed", name, changes, DEV=str(data)))
    assert status == 0, errors
    assert lines[0].startswith("7 ")  # from the checkpoint of step 6
    assert lines == expected[6:]
    ours, theirs = weights(tmp_path / "killed"), weights(tmp_path / "whole")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_two_processes_learn_what_one_does(still: Path, data: Path, tmp_path: Path) -> None:
    changes = {**SMALL, "steps": "2", "lora_rank": "4", "learning_rate": "0.001"}
    status, alone, errors = ended(worker(still, data, tmp_path / "one", "dense", changes))
    assert status == 0, errors
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    pair = [
        worker(
            still, data, tmp_path / "two", "dense", changes,
            WORLD_SIZE="2", RANK=str(rank), LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1", MASTER_PORT=port,
        )
        for rank in range(2)
    ]  # fmt: skip
    one = [float(line.split()[1]) for line in alone]
    for status, lines, errors in map(ended, pair):
        assert status == 0, errors
        assert [float(line.split()[1]) for line in lines] == pytest.approx(one, rel=1e-4)
    # AdamW's first steps are about as long as the learning rate however small a gradient is, so where one is all but 0
    # its last bit decides: the weights agree as a whole, not one by one.
    ours, theirs = weights(tmp_path / "two"), weights(tmp_path / "one")
    for key in theirs:
        assert (ours[key] - theirs[key]).abs().mean() < 0.05 * 0.001, key


def test_a_loss_that_is_not_a_number_stops_the_run_and_leaves_no_model(base: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(NonFiniteLossError, match="is not a number"):
        train_model(config("dense", base, learning_rate="1e30", clip="1e30"), [data], tmp_path / "m", cache=tmp_path)
    assert not (tmp_path / "m").exists()


def test_early_stopping_keeps_the_best(base: Path, data: Path, tmp_path: Path) -> None:
    manifest = train_model(
        config("dense", base, steps="40", evaluate_every="2", patience="2", learning_rate="1e-7"),
        [data], tmp_path / "m", cache=tmp_path, dev=data,
    )  # fmt: skip
    assert manifest["metrics"]["stopped_early"]
    assert manifest["metrics"]["steps"] < 40


def test_damaged_checkpoints(base: Path, data: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    train_model(config("dense", base), [data], tmp_path / "m", cache=tmp_path, work=work)
    kept = sorted(path.name for path in work.glob("checkpoint-*"))
    assert kept == ["checkpoint-12", "checkpoint-9"]
    steps: list[int] = []

    def again(name: str, **changes: str) -> None:
        steps.clear()
        train_model(
            config("dense", base, **changes), [data], tmp_path / name, cache=tmp_path, work=work,
            progress=lambda step, _: steps.append(step),
        )  # fmt: skip

    newest = work / "checkpoint-12" / "model.safetensors"
    newest.write_bytes(newest.read_bytes()[:-10])
    again("from-9")
    assert steps == [10, 11, 12]
    with pytest.raises(InvalidInputError, match="belong to another run"):
        again("other", seed="5")
    for path in work.glob("checkpoint-*/state.json"):
        path.write_text("{}")
    with pytest.raises(CorruptionError, match="every checkpoint of the run is damaged"):
        again("none")


def test_states_are_shared_by_runs_and_mended_after_a_kill(base: Path, tmp_path: Path) -> None:
    model = load_sentence_transformer(str(base), "cpu")
    backbone = Backbone(TorchTransformer(model), window=32, max_tokens=32)
    one, other = (StateCache(tmp_path, lambda: backbone, "same") for _ in range(2))
    texts = [row.positives[0].joined for row in tiny_rows(6)]
    first = one.get(texts[:2])
    theirs = other.get(texts[2:4])  # opened before the first wrote anything
    (folder,) = tmp_path.iterdir()
    with (folder / "index.jsonl").open("ab") as index:
        index.write(b'{"text": "torn')
    last = one.get(texts)
    fresh = StateCache(tmp_path, lambda: backbone, "same").get(texts)
    for made in (last, fresh):
        for expected, found in zip([*first, *theirs], made[:4], strict=True):
            assert np.array_equal(expected.ids_L, found.ids_L)
            assert np.array_equal(expected.states_LH, found.states_LH)
    for text, found in zip(texts, fresh, strict=True):
        ((_, exact),) = backbone.states([text])
        assert found.ids_L.tolist() == exact.ids_L.tolist()
        assert np.allclose(found.states_LH, exact.states_LH, atol=2e-3)
    assert len((folder / "index.jsonl").read_bytes().splitlines()) == len(set(texts))


def test_the_learning_rate_warms_up_and_falls() -> None:
    plan = recipe("dense", {"steps": "100", "warm_up": "0.1"})
    assert [rate(step, plan) for step in (0, 9, 10, 55, 99)] == pytest.approx([0.1, 1.0, 1.0, 0.5, 1 / 90])


def test_the_registry_lists_compares_promotes_and_rolls_back(base: Path, data: Path, tmp_path: Path) -> None:
    registry = ModelRegistry(tmp_path / "models")
    for name, steps in (("first", "2"), ("second", "3")):
        train_model(config("dense", base, steps=steps), [data], tmp_path / "models" / name, cache=tmp_path)
    assert registry.names() == ["first", "second"]
    assert registry.compare("first", "second")["config"] == {"steps": [2, 3]}
    for name in ("first", "second"):
        assert registry.promote(name) == "dense-lora"
    assert registry.rollback("dense-lora") == "first"
    with pytest.raises(ConflictError, match="no earlier model"):
        registry.rollback("dense-lora")
    file = tmp_path / "models" / "first" / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(CorruptionError, match="does not match its sha256"):
        registry.show("first")


def test_an_unfinished_checkpoint_is_not_seen(tmp_path: Path) -> None:
    (tmp_path / ".checkpoint-5.123.tmp").mkdir()
    (tmp_path / "checkpoint-6").mkdir()  # no manifest: a copy that was cut short
    parameter = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.AdamW([parameter])
    with pytest.raises(CorruptionError, match="every checkpoint"):
        checkpoint.load(tmp_path, "run", {"p": parameter}, optimizer)
