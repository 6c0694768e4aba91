"""Training end to end on a tiny model: every kind of student, resuming, several processes, runs that must not succeed."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.training import tiny_model, tiny_rows
from support.training_runs import KINDS, config, weights

from hyblink.app.core.errors import ConflictError, EncoderUnavailableError, InvalidInputError
from hyblink.app.core.manifest import check_manifest
from hyblink.app.core.settings import EncodeSettings
from hyblink.app.encoders.cross_encoder.loader import CrossEncoderLoader
from hyblink.app.encoders.cross_encoder.transformer import load_scorer
from hyblink.training.data.batches import draw
from hyblink.training.data.rows import Text, read_rows, write_jsonl
from hyblink.training.families.cross_encoder.trainable import CrossEncoderTrainable
from hyblink.training.families.dense.trainable import DenseTrainable
from hyblink.training.families.mention.trainable import MentionTrainable
from hyblink.training.loop import checkpoint
from hyblink.training.negatives.ance import AnceMiner, corpus_of
from hyblink.training.negatives.mining import Mining
from hyblink.training.recipes import recipe
from hyblink.training.run import train_model


@pytest.mark.parametrize("name", ["cross_encoder", "dense", "blink_bi"])
def test_an_adapter_goes_on_from_an_earlier_one(name: str, base: Path, data: Path, tmp_path: Path) -> None:
    one = config(name, base, steps="2")
    train_model(one, [data], tmp_path / "earlier", cache=tmp_path / "states")
    student = {"cross_encoder": CrossEncoderTrainable, "dense": DenseTrainable}.get(
        name, partial(MentionTrainable, vectors=None)
    )(one)
    begun = {name: tensor.detach().clone() for name, tensor in student.parameters().items()}
    student.init_from(tmp_path / "earlier")
    again = tmp_path / "again"
    again.mkdir()
    student.save(again)
    was, now = weights(tmp_path / "earlier"), weights(again)
    assert was.keys() == now.keys()
    assert all(torch.equal(was[key], now[key]) for key in was)
    assert any(not torch.equal(begun[key], tensor) for key, tensor in student.parameters().items())
    # A run that goes on is another run than one that begins anew, and says where it comes from.
    made = train_model(one, [data], tmp_path / "on", cache=tmp_path / "states", init_from=tmp_path / "earlier")
    assert "head earlier" in made["data"]
    assert any(
        not torch.equal(one, other) for one, other in zip(was.values(), weights(tmp_path / "on").values(), strict=True)
    )
    # What does not fit is refused before anything is computed.
    small = tiny_model(tmp_path / "small", layers=1)
    other = "dense" if name == "cross_encoder" else "cross_encoder"
    cases = [
        (one, tmp_path / "nothing", "no such model"),
        (config(name, base, lora_rank="2"), tmp_path / "earlier", "another form"),
        (config(name, small), tmp_path / "earlier", "another form"),
        (config(other, base), tmp_path / "earlier", "cannot go on from it"),
        (config("dense", base, tuning="full"), tmp_path / "earlier", "does not go on from an adapter"),
    ]
    for wrong, folder, message in cases:
        with pytest.raises(InvalidInputError, match=message):
            train_model(wrong, [data], tmp_path / "never", cache=tmp_path / "states", init_from=folder)
    assert not (tmp_path / "never").exists()


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_frozen_layers_stay_as_they_are_and_dropout_can_be_left_out(tuning: str, data: Path, tmp_path: Path) -> None:
    base = tiny_model(tmp_path / "base", layers=2)
    before = load_file(base / "model.safetensors")
    changes = {"tuning": tuning, "frozen_layers": "1", "dropout": "false", "lora_rank": "4"}
    student = CrossEncoderTrainable(config("cross_encoder", base, **changes))
    assert {module.p for module in student.model.modules() if isinstance(module, torch.nn.Dropout)} == {0.0}
    learning = set(student.parameters())
    assert any("layer.1." in name for name in learning)
    assert not any("layer.0." in name or "embeddings." in name for name in learning)
    assert student.backward(draw(read_rows(data), batch=2, negatives=2, seed=0, step=0), 1.0) > 0
    assert all(tensor.grad is not None for tensor in student.parameters().values())
    train_model(config("cross_encoder", base, **changes), [data], tmp_path / "model", cache=tmp_path / "states")
    after = weights(tmp_path / "model")
    if tuning == "lora":
        assert not any("layer.0." in name for name in after)
    else:
        frozen = [name for name in before if "layer.0." in name]
        assert frozen
        for name in frozen:
            (found,) = [value for key, value in after.items() if key.endswith(name)]
            assert torch.equal(found, before[name])
    with pytest.raises(InvalidInputError, match="no layer is left"):
        CrossEncoderTrainable(config("cross_encoder", base, tuning=tuning, frozen_layers="2", lora_rank="4"))


def test_what_remains_to_learn_beside_the_first_stage(still: Path, data: Path, tmp_path: Path) -> None:
    student = CrossEncoderTrainable(config("cross_encoder", still, residual="0.5", dropout="false"))
    drawn = draw(read_rows(data), batch=3, negatives=2, seed=0, step=0)
    with torch.no_grad():
        scores_QP = [
            torch.from_numpy(student.model.predict([(one.row.query, text.joined) for text in one.passages]))
            + 0.5 * torch.tensor(one.teacher)
            for one in drawn
        ]
    gold_P = torch.softmax(torch.tensor([10.0, 0.0, 0.0]), dim=0)
    plain = [-(gold_P * torch.log_softmax(scores_P, dim=0)).sum() for scores_P in scores_QP]
    assert student.backward(drawn, 1.0) == pytest.approx(float(torch.stack(plain).mean()), abs=1e-5)
    unscored = tmp_path / "unscored.jsonl"
    write_jsonl(unscored, tiny_rows(8))
    with pytest.raises(InvalidInputError, match="first stage's scores"):
        train_model(
            config("cross_encoder", still, residual="1"), [unscored], tmp_path / "model", cache=tmp_path / "states"
        )
    with pytest.raises(InvalidInputError, match="listwise"):
        config("cross_encoder", still, residual="1", loss="bce")


def test_a_cross_encoder_of_the_lower_layers_alone(data: Path, tmp_path: Path) -> None:
    base = tiny_model(tmp_path / "base", layers=3)
    settings = config("cross_encoder", base, kept_layers="2", frozen_layers="1")
    manifest = train_model(settings, [data], tmp_path / "model", cache=tmp_path / "states")
    assert manifest["layers"] == 2
    loaded = load_scorer(str(tmp_path / "model"), "cpu", 64)
    assert len(loaded[0].model.base_model.encoder.layer) == 2
    rows = read_rows(data)
    pairs = [(rows[0].query, text.joined) for text in (*rows[0].positives, *rows[0].negatives)]
    graph = CrossEncoderLoader().in_onnx(str(tmp_path / "model"), EncodeSettings(), "fp32", 64)
    np.testing.assert_allclose(graph.score(pairs, None), loaded.predict(pairs), atol=1e-4)
    with pytest.raises(EncoderUnavailableError, match="layers cannot be cut off; received 4"):
        CrossEncoderTrainable(config("cross_encoder", base, kept_layers="4"))
    with pytest.raises(InvalidInputError, match="unknown option of the recipe dense; received 'kept_layers'"):
        config("dense", base, kept_layers="1")
    with pytest.raises(InvalidInputError, match="no layer is left"):
        CrossEncoderTrainable(config("cross_encoder", base, kept_layers="1", frozen_layers="1"))


@pytest.mark.parametrize("name", list(KINDS))
def test_every_kind_of_student_learns_and_is_saved_with_its_lineage(
    name: str, base: Path, data: Path, tmp_path: Path
) -> None:
    manifest = train_model(
        config(name, base, steps="25"), [data], tmp_path / "model", cache=tmp_path / "states", dev=data
    )
    metrics: dict[str, Any] = manifest["metrics"]
    assert metrics["loss_last"] < metrics["loss_first"]
    assert metrics["steps"] == 25
    assert manifest["data"].keys() == {"rows.jsonl"}
    assert check_manifest(tmp_path / "model")["recipe"] == name
    assert (tmp_path / "model" / "curve.png").stat().st_size > 1000
    adapter = tmp_path / "model" / "adapter_config.json"
    assert not adapter.exists() or json.loads(adapter.read_text())["base_model_name_or_path"] == str(base)
    assert {path.suffix for path in (tmp_path / "model").rglob("*") if path.is_file()} <= {
        ".safetensors",
        ".json",
        ".txt",
        ".png",
    }
    with pytest.raises(ConflictError, match="exists already"):
        train_model(config(name, base), [data], tmp_path / "model", cache=tmp_path / "states")


def test_gradient_caching_and_accumulation_run_and_mini_batches_change_nothing(
    still: Path, data: Path, tmp_path: Path
) -> None:
    plain = train_model(config("dense", still, steps="2"), [data], tmp_path / "a", cache=tmp_path)
    cached = train_model(config("dense", still, steps="2", mini_batch="1"), [data], tmp_path / "b", cache=tmp_path)
    assert cached["metrics"]["loss_last"] == pytest.approx(plain["metrics"]["loss_last"], rel=1e-2)
    train_model(config("dense", still, steps="2", accumulate="2"), [data], tmp_path / "c", cache=tmp_path)


def appears(path: Path) -> None:
    """Wait for a file that a thread writes."""
    deadline = time.monotonic() + 60
    while not path.is_file():
        assert time.monotonic() < deadline, f"{path.name} was not written"
        time.sleep(0.02)


def test_a_model_mines_its_own_negatives_and_each_tells_where_it_is_from(
    base: Path, data: Path, tmp_path: Path
) -> None:
    rows = read_rows(data)
    made = config("dense", base)
    student, shadow = DenseTrainable(made), DenseTrainable(made)
    corpus = corpus_of(rows, [Text("a whole corpus has more passages")])
    mining = Mining(keep=5, last_rank=50, drop_near_duplicates=False)
    own = AnceMiner(student, shadow, rows, corpus, tmp_path, every=2, steps=6, mining=mining)
    for step in range(3):
        own.on_step(step)
        assert bool(own.pool(0)) == (step == 2)  # the first period draws from what is given
        if step == 0:
            for tensor in student.parameters().values():
                tensor.data += 0.05 * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(1))
    appears(tmp_path / "mined-1.json")
    own.close()
    with torch.no_grad():
        q, p = shadow.queries(rows[:1]), shadow.passages(corpus)
    # Period 1 draws from what the weights of step 0 proposed; the shadow holds those of step 2 by now.
    assert all(
        torch.equal(a, b) for a, b in zip(student.parameters().values(), shadow.parameters().values(), strict=True)
    )
    fresh = DenseTrainable(made)
    fresh.train(False)
    with torch.no_grad():
        first = fresh.scores(fresh.queries(rows[:1]), fresh.passages(corpus))[0]
    assert not torch.allclose(first, shadow.scores(q, p)[0], atol=1e-3)
    best = [corpus[at] for at in first.argsort(descending=True, stable=True).tolist()]
    expected = [one.joined for one in best if one.joined not in {two.joined for two in rows[0].positives}][:5]
    assert [one.joined for one in own.pool(0)] == expected
    assert [one.source for one in own.pool(0)] == [f"self-0@{rank}" for rank in range(1, 6)]
    # Whoever goes on in the middle of a period draws the same, and mines again what had not been written.
    again = AnceMiner(
        DenseTrainable(made), DenseTrainable(made), rows, corpus, tmp_path, every=2, steps=6, mining=mining
    )
    checkpoint.save_best_weights(tmp_path / "copied-1", dict(student.parameters()))
    (tmp_path / "mined-1.json").unlink()
    again.on_step(3)
    assert again.pool(0) == own.pool(0)
    appears(tmp_path / "mined-1.json")
    again.close()


def test_self_mining_needs_a_retriever_and_other_passages(base: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="unknown option of the recipe cross_encoder; received 'refresh_every'"):
        config("cross_encoder", base, refresh_every="2")
    (row, *_) = read_rows(data)
    write_jsonl(tmp_path / "one.jsonl", [replace(row, negatives=(), negative_scores=())] * 4)
    with pytest.raises(InvalidInputError, match="no passage can be a negative"):
        train_model(config("dense", base, refresh_every="2"), [tmp_path / "one.jsonl"], tmp_path / "m", cache=tmp_path)
    assert not (tmp_path / "m").exists()


def test_data_that_cannot_teach_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    bare = tmp_path / "bare.jsonl"
    write_jsonl(bare, tiny_rows(8, negatives=0))
    with pytest.raises(InvalidInputError, match="what re-ranks learns from negatives"):
        train_model(recipe("cross_encoder", {"base": "/nowhere"}), [bare], tmp_path / "m", cache=tmp_path)
    said: list[str] = []
    with pytest.raises(Exception, match="nowhere"):
        train_model(recipe("dense", {"base": "/nowhere"}), [bare], tmp_path / "m", cache=tmp_path, say=said.append)
    assert said == ["no row has negatives: only in-batch ones are learned from"]
