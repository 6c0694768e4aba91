"""A family of models that can be trained: what its runs are configured by, learn from, and leave behind.

A family is a folder beside this file and a row in `registry.py`. Everything that differs between families is here;
`training/run.py` asks for it and knows none of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

from hyblink.app.core.errors import InvalidInputError
from hyblink.training.data.batches import Drawn
from hyblink.training.data.rows import TrainingRow, read_rows
from hyblink.training.load import Loaded
from hyblink.training.run_config import RunConfig


class Trainable(Protocol):
    """A model that learns. `torch` is imported where one is made."""

    def parameters(self) -> Mapping[str, Any]:
        """What is trained: `torch.nn.Parameter` by name."""
        ...

    def learning_rate(self, name: str) -> float:
        """The peak learning rate of a parameter."""
        ...

    def backward(self, drawn: Sequence[Drawn], scale: float) -> float:
        """Add the gradients of `scale ·` the mean loss of these queries; that loss, not scaled."""
        ...

    def metric(self, rows: Sequence[TrainingRow]) -> float:
        """How good it is on dev rows, larger is better."""
        ...

    def train(self, on: bool) -> None:
        """Switch dropout on or off."""
        ...

    def save(self, folder: Path) -> list[str]:
        """Write the model's files into a folder; their names."""
        ...


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a model is made from, beside its configuration."""

    cache: Path
    """Where hidden states of frozen backbones are kept."""
    statistics: Mapping[str, Sequence[str]]
    """The passages of each source, by its name."""
    entities: tuple[Path, ...] = ()
    """Files of entities' vectors (`hyblink kb export-vectors`)."""
    go_on_from: Path | None = None
    """The folder of an earlier model of this form."""


Say = Callable[[str], None]


class Family(ABC):
    """One row of the registry. Methods that most families share have a body."""

    kind: ClassVar[str]
    """The family's name: `RunConfig.kind`, and `kind` in `--set`."""
    config: ClassVar[type[RunConfig]]
    """The configuration with the family's own fields."""
    losses: ClassVar[tuple[str, ...]]
    tunings: ClassVar[tuple[str, ...]] = ("full", "lora")

    def check(self, config: RunConfig) -> None:
        """Raises InvalidInputError for options that make no sense."""
        config.check()
        if config.tuning not in self.tunings:
            raise InvalidInputError(
                f"a {self.kind} run has no such tuning", received=config.tuning, expected=" or ".join(self.tunings)
            )
        if config.loss not in self.losses:
            raise InvalidInputError(
                f"a {self.kind} run has no such loss", received=config.loss, expected=", ".join(sorted(self.losses))
            )

    def check_inputs(self, config: RunConfig, inputs: Inputs) -> None:
        """Raises InvalidInputError where what a run is given does not go with its configuration."""
        if inputs.go_on_from is not None and not self.goes_on(config):
            raise InvalidInputError(
                "such a model does not go on from an adapter",
                received=f"{config.recipe}, tuning {config.tuning}",
                expected="a VDR head or a LoRA adapter; a whole model is its own base (--set base=FOLDER)",
            )

    def goes_on(self, config: RunConfig) -> bool:
        """Whether a run may begin with the weights of an earlier one of its form."""
        return config.tuning == "lora"

    def read(self, path: Path, split: str) -> Sequence[TrainingRow]:
        """The rows of a source. Raises NotFoundError, InvalidInputError."""
        return read_rows(path, split)

    def rows(self, config: RunConfig, loaded: Loaded, say: Say) -> tuple[RunConfig, list[TrainingRow]]:
        """The rows that are learned from, and the configuration that they allow. `say` tells what is left out."""
        return with_negatives(config, loaded.rows, say)

    def mines_every(self, config: RunConfig) -> int:
        """Steps after which the model mines its own negatives; 0 for never."""
        del config
        return 0

    @abstractmethod
    def trainable(self, config: RunConfig, inputs: Inputs, beside: Any = None) -> Trainable:
        """A model to be trained. `beside` is another of the same run, whose caches it may share."""

    @abstractmethod
    def artifact(self, config: RunConfig) -> str:
        """What the finished folder is: `kind` of its manifest, which says how it is loaded."""

    def manifest(self, config: RunConfig) -> dict[str, Any]:
        """Further fields of the manifest."""
        del config
        return {}


def with_negatives(config: RunConfig, rows: Sequence[TrainingRow], say: Say) -> tuple[RunConfig, list[TrainingRow]]:
    """Rows that have negatives, where some do; where none has any, all of them, and none are drawn."""
    if not config.negatives:
        return config, list(rows)
    kept = [row for row in rows if row.negatives]
    if not kept:
        say("no row has negatives: only in-batch ones are learned from")
        return replace(config, negatives=0), list(rows)
    if len(kept) < len(rows):
        say(f"{len(rows) - len(kept)} of {len(rows)} rows have no negatives and are left out")
    return config, kept


def with_first_stage_scores(rows: Sequence[TrainingRow], residual: float, say: Say) -> list[TrainingRow]:
    """Rows that have the first stage's scores, where a run learns beside them. Raises InvalidInputError if none has."""
    if not residual:
        return list(rows)
    scored = [row for row in rows if row.positive_scores and row.negative_scores]
    if not scored:
        raise InvalidInputError(
            "no row has the first stage's scores", received=f"residual {residual:g}",
            expected="rows of hyblink mine --scores",
        )  # fmt: skip
    if len(scored) < len(rows):
        say(f"{len(rows) - len(scored)} of {len(rows)} rows have no first stage's scores and are left out")
    return scored
