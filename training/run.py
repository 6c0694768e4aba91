"""A complete training run: load and check data, build the model, train, write the model folder.

Everything that depends on the kind of model is in its family (`training/families/`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import orjson

from hyblink.app.core.errors import ConflictError, InvalidInputError, NotFoundError
from hyblink.app.core.manifest import sha256
from hyblink.app.encoders.loading.models import weights_version
from hyblink.training.curve import plot_curve
from hyblink.training.families.base import Inputs
from hyblink.training.families.registry import family_of
from hyblink.training.load import Loaded, load
from hyblink.training.registry import Lineage, finish
from hyblink.training.run_config import RunConfig

if TYPE_CHECKING:
    from hyblink.training.negatives.ance import Retriever


def train_model(
    config: RunConfig,
    data: Sequence[Path],
    out: Path,
    *,
    split: str = "train",
    dev: Path | None = None,
    dev_split: str = "dev",
    dev_limit: int = 200,
    work: Path | None = None,
    cache: Path,
    parent: str = "",
    entities: Sequence[Path] = (),
    init_from: Path | None = None,
    statistics: Mapping[str, Sequence[str]] | None = None,
    progress: Callable[[int, float], None] = lambda _step, _loss: None,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Train a model, write it to the folder `out` and return its manifest ({} on all ranks but 0 under torchrun).

    `work` holds checkpoints (default: a hidden folder next to `out`). If it has checkpoints of the same run, training
    resumes from the newest. `cache` holds hidden states of frozen backbones.

    `dev` is evaluated during training, at most `dev_limit` rows of `dev_split`. `entities` are files of entity vectors
    that a mention encoder is trained against. `init_from` is the folder of an earlier VDR head or LoRA adapter whose
    weights are the starting point. `statistics` are the passages of each source by file name, needed if the rows do not
    contain all of them. `progress` is called with step and loss, `say` with messages for the user.

    Raises ConflictError if `out` exists, InvalidInputError for bad data or options. Both are checked before training.
    """
    family = family_of(config)
    family.check(config)
    if out.exists():
        raise ConflictError("the model exists already", received=str(out), expected="a new folder")
    inputs = Inputs(cache, statistics or {}, tuple(entities), init_from)
    family.check_inputs(config, inputs)
    loaded = load(data, split, family.read)
    config, rows = family.rows(config, loaded, say)
    if statistics is None:
        inputs = replace(inputs, statistics=loaded.texts)
    dev_rows = []
    if dev is not None:
        dev_rows = [replace(row, collection=dev.name) for row in family.read(dev, dev_split)[:dev_limit]]
    fingerprints = {**loaded.fingerprints, **_fingerprints(inputs)}
    run = hashlib.sha256(orjson.dumps([asdict(config), fingerprints], option=orjson.OPT_SORT_KEYS)).hexdigest()
    work = work or out.with_name(f".{out.name}.run")

    from hyblink.training.loop.trainer import train, world

    model = family.trainable(config, inputs)
    negatives = None
    if family.mines_every(config):
        negatives = _own_negatives(config, inputs, model, rows, loaded, work / f"negatives-{world()[0]}")
    try:
        outcome = train(
            model,
            rows,
            config,
            work,
            run=run,
            dev=dev_rows,
            pool=negatives.pool if negatives else lambda _: (),
            progress=progress,
            on_step=negatives.on_step if negatives else lambda _: None,
        )
    finally:
        if negatives:
            negatives.close()
    state = outcome.state
    metrics = {
        "steps": state.step,
        "loss_first": _mean(state.losses[:20]),
        "loss_last": _mean(state.losses[-20:]),
        "dev": [list(item) for item in state.dev],
        "best_dev": state.best if state.dev else None,
        "stopped_early": outcome.early,
        "rows": len(rows),
    }
    if world()[0]:
        return {}

    def write(folder: Path) -> list[str]:
        files = list(model.save(folder))
        plot_curve(state.losses, state.dev, folder / "curve.png", config.recipe)
        return [*files, "curve.png"]

    fields = family.manifest(config)
    return finish(
        out, out.name, config, family.artifact(config), Lineage(fingerprints, parent), metrics, write, **fields
    )


def _fingerprints(inputs: Inputs) -> dict[str, str]:
    """Fingerprints of the inputs other than rows: entity vectors and the earlier model.

    Raises NotFoundError or InvalidInputError if one is missing.
    """
    found = {}
    for path in inputs.entities:
        if not path.is_file():
            raise NotFoundError(
                "no such file of vectors", received=str(path), expected="one of hyblink kb export-vectors"
            )
        found[path.name] = sha256(path)
    earlier = inputs.init_from
    if earlier is not None:
        if not earlier.is_dir():
            raise InvalidInputError("no such model", received=str(earlier), expected="a folder with a manifest.json")
        found[f"head {earlier.name}"] = weights_version(earlier)
    return found


def _own_negatives(
    config: RunConfig, inputs: Inputs, model: Any, rows: Sequence[Any], loaded: Loaded, folder: Path
) -> Any:
    """The ANCE miner: mines hard negatives with a second model that receives copies of the trained weights."""
    from hyblink.training.negatives.ance import AnceMiner, corpus_of
    from hyblink.training.negatives.mining import Mining

    family = family_of(config)
    return AnceMiner(
        model,
        cast("Retriever", family.trainable(config, inputs, model)),
        rows,
        corpus_of(loaded.rows, loaded.passages),
        folder,
        every=family.mines_every(config),
        steps=config.steps,
        mining=Mining(),
    )


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
