"""A run from beginning to end: data, checks, student, training, model folder, curve."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from hyblink.app.core.errors import ConflictError, InvalidInputError, NotFoundError
from hyblink.app.core.manifest import sha256
from hyblink.app.encoders.loading.models import weights_version
from hyblink.training.data.rows import Text, TrainingRow, fingerprint, read_corpus, read_rows
from hyblink.training.linking.spans import read_spans
from hyblink.training.linking.vectors import EntityVectors
from hyblink.training.negatives.ance import OwnNegatives, corpus_of
from hyblink.training.negatives.mining import Mining
from hyblink.training.recipes import RunConfig
from hyblink.training.registry import Lineage, finish


@dataclass(frozen=True, slots=True)
class Loaded:
    """Rows of all sources, their fingerprints by name, and the passages of each: for statistics."""

    rows: tuple[TrainingRow, ...]
    fingerprints: dict[str, str]
    texts: dict[str, list[str]]
    passages: tuple[Text, ...] = ()
    """Those of whole corpora."""


def load(paths: Sequence[Path], split: str, read: Callable[[Path, str], Sequence[TrainingRow]] = read_rows) -> Loaded:
    """Read and check everything. A source's statistics come from its whole corpus where the path is a BEIR folder."""
    rows: list[TrainingRow] = []
    fingerprints, texts = {}, {}
    corpora: list[Text] = []
    for path in paths:
        name = path.name
        if name in fingerprints:
            raise InvalidInputError("two sources of one name", received=name, expected="each name once")
        own: list[TrainingRow] = [replace(row, collection=name) for row in read(path, split)]
        fingerprints[name] = fingerprint(own)
        passages: dict[str, Text] = {}
        if path.is_dir():
            passages = read_corpus(path)
            corpora += passages.values()
        else:
            for row in own:
                for one in (*row.positives, *row.negatives):
                    passages.setdefault(one.joined, one)
        texts[name] = [one.joined for one in passages.values()]
        rows += own
    return Loaded(tuple(rows), fingerprints, texts, tuple(corpora))


def _in_windows(loaded: Loaded, config: RunConfig, say: Callable[[str], None]) -> Loaded:
    """Texts with mentions, none longer than what is read at once."""
    from hyblink.app.encoders.loading.models import plain_tokenizer, root_of
    from hyblink.training.linking.spans import SpanRow, cut_to

    rows = [row for row in loaded.rows if isinstance(row, SpanRow)]
    made = cut_to(rows, plain_tokenizer(root_of(config.base)), config.query_tokens - 2)
    if len(made) > len(rows):
        say(f"texts longer than {config.query_tokens} tokens are cut behind sentences: {len(rows)} become {len(made)}")
    if config.negatives and not any(row.hard for row in rows):
        say("no mention has wrong candidates: entities drawn at random are learned from")
    return replace(loaded, rows=tuple(made))


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
    go_on_from: Path | None = None,
    statistics: Mapping[str, Sequence[str]] | None = None,
    progress: Callable[[int, float], None] = lambda _step, _loss: None,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Train a model into the folder `out`; its manifest. `work` (by default beside `out`) holds checkpoints.

    `entities` are knowledge bases' vectors, which a mention encoder learns against. A VDR head or a LoRA adapter may
    `go_on_from` the folder of an earlier one of its form. `statistics` are the passages of each source (by its file's
    name), where the rows do not hold all of them.

    Started again after it was killed, it goes on from the newest checkpoint. Raises ConflictError where `out` exists,
    InvalidInputError for data or options that make no sense, before anything is computed.
    """
    config.check()
    if out.exists():
        raise ConflictError("the model exists already", received=str(out), expected="a new folder")
    read: Callable[[Path, str], Sequence[TrainingRow]] = read_rows
    if config.kind == "span":
        read = lambda path, _split: read_spans(path)  # noqa: E731
    if config.kind == "span" and bool(entities) == config.train_entities:
        raise InvalidInputError(
            "a span head learns against entities' vectors, or with their tower",
            received=f"{len(entities)} files of vectors, train_entities {config.train_entities}",
            expected="either --entities FILE or --set train_entities=true",
        )
    loaded = load(data, split, read)
    if config.kind == "span":
        loaded = _in_windows(loaded, config, say)
    elif config.negatives and not any(row.negatives for row in loaded.rows) and not config.refresh_every:
        say("no row has negatives: only in-batch ones are learned from")
        config = replace(config, negatives=0)
    rows = list(loaded.rows)
    if config.refresh_every and not all(row.negatives for row in rows):
        rows = [replace(row, negatives=(), negative_scores=()) for row in rows]
        say("some rows have no negatives: until the model has mined its own, in-batch ones are learned from")
    if config.negatives and not config.refresh_every and config.kind != "span":
        without = sum(not row.negatives for row in rows)
        rows = [row for row in rows if row.negatives]
        if without:
            say(f"{without} of {len(loaded.rows)} rows have no negatives and are left out")
    if config.residual:
        scored = [row for row in rows if row.positive_scores and row.negative_scores]
        if not scored:
            raise InvalidInputError(
                "no row has the first stage's scores",
                received=f"residual {config.residual:g}",
                expected="rows of hyblink mine --scores",
            )
        if len(scored) < len(rows):
            say(f"{len(rows) - len(scored)} of {len(rows)} rows have no first stage's scores and are left out")
        rows = scored
    if config.kind in {"cross", "late"} and not config.negatives:
        raise InvalidInputError("what re-ranks learns from negatives", received="none", expected="rows with negatives")
    dev_rows = [] if dev is None else [replace(one, collection=dev.name) for one in read(dev, dev_split)[:dev_limit]]
    fingerprints = dict(loaded.fingerprints)
    for path in entities:
        if not path.is_file():
            raise NotFoundError(
                "no such file of vectors", received=str(path), expected="one of hyblink kb export-vectors"
            )
    fingerprints |= {path.name: sha256(path) for path in entities}
    if go_on_from is not None:
        if config.kind == "late" or config.tuning != ("head" if config.kind == "vdr" else "lora"):
            raise InvalidInputError(
                "such a model does not go on from an adapter",
                received=f"{config.recipe}, tuning {config.tuning}",
                expected="a VDR head or a LoRA adapter; a whole model is its own base (--set base=FOLDER)",
            )
        if not go_on_from.is_dir():
            raise InvalidInputError("no such model", received=str(go_on_from), expected="a folder with a manifest.json")
        fingerprints[f"head {go_on_from.name}"] = weights_version(go_on_from)
    run = hashlib.sha256(orjson.dumps([asdict(config), fingerprints], option=orjson.OPT_SORT_KEYS)).hexdigest()
    work = work or out.with_name(f".{out.name}.run")

    from hyblink.training.families.students import CrossStudent, DenseStudent, MentionStudent, VdrStudent
    from hyblink.training.loop.trainer import train, world

    def make(beside: Any = None) -> Any:
        if config.kind == "span":
            from hyblink.training.families.span import SpanStudent

            head = SpanStudent(config, EntityVectors(*entities) if entities else None)
            if go_on_from is not None:
                head.go_on_from(go_on_from)
            return head
        if config.kind == "late":
            from hyblink.training.families.late_interaction import InteractionStudent

            late = InteractionStudent(config, cache)
            late.set_statistics(loaded.texts if statistics is None else statistics)
            return late
        made: Any
        if config.kind == "mention":
            made = MentionStudent(config, EntityVectors(*entities) if entities else None)
        elif config.kind == "vdr":
            made = VdrStudent(config, cache, beside)
        else:
            made = DenseStudent(config) if config.kind == "dense" else CrossStudent(config)
        if go_on_from is not None:
            made.go_on_from(go_on_from)
        if config.kind == "vdr" and config.lexical:
            made.set_statistics(loaded.texts if statistics is None else statistics)
        return made

    student = make()
    own = None
    if config.refresh_every:
        own = OwnNegatives(
            student, make(student), rows, corpus_of(loaded.rows, loaded.passages), work / f"negatives-{world()[0]}",
            every=config.refresh_every, steps=config.steps,
            mining=Mining(),
        )  # fmt: skip
    try:
        outcome = train(
            student,
            rows,
            config,
            work,
            run=run,
            dev=dev_rows,
            pool=own.pool if own else lambda _: (),
            progress=progress,
            on_step=own.on_step if own else lambda _: None,
        )
    finally:
        if own:
            own.close()
    state = outcome.state
    metrics = {
        "steps": state.step,
        "loss_first": _mean(state.losses[:20]),
        "loss_last": _mean(state.losses[-20:]),
        "dev": [list(one) for one in state.dev],
        "best_dev": state.best if state.dev else None,
        "stopped_early": outcome.early,
        "rows": len(rows),
    }
    if world()[0]:
        return {}

    def write(folder: Path) -> list[str]:
        files = list(student.save(folder))
        plot_curve(state.losses, state.dev, folder / "curve.png", config.recipe)
        return [*files, "curve.png"]

    fields = {"calibrated": config.calibrated and config.lexical, "mode": "full"} if config.kind == "vdr" else {}
    if config.kept_layers:
        fields["layers"] = config.kept_layers
    return finish(out, out.name, config, Lineage(fingerprints, parent), metrics, write, **fields)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def plot_curve(losses: Sequence[float], dev: Sequence[tuple[int, float]], path: Path, title: str) -> None:
    """The loss by step, smoothed over 20, and the dev metric."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np

    figure, axes = plt.subplots(figsize=(7, 3.5))
    if losses:
        width = min(20, len(losses))
        axes.plot(np.arange(width, len(losses) + 1), np.convolve(losses, np.ones(width) / width, "valid"), label="loss")
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    if dev:
        other = axes.twinx()
        other.plot(*zip(*dev, strict=True), "o-", color="tab:orange", label="dev MRR@10")
        other.set_ylabel("dev MRR@10")
    axes.set_title(title)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
