"""The interface of a model family: its configuration, its training data, its trainable model and its output.

A family is a subpackage of this one and an entry in `registry.py`. `training/run.py` uses only this interface.
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
    """A model in training. Implementations import `torch`, this module does not."""

    def parameters(self) -> Mapping[str, Any]:
        """The trainable parameters (`torch.nn.Parameter`) by name."""
        ...

    def learning_rate(self, name: str) -> float:
        """The peak learning rate of a parameter."""
        ...

    def backward(self, drawn: Sequence[Drawn], scale: float) -> float:
        """Compute the mean loss of the examples and add the gradients of `scale · loss`; returns the unscaled loss."""
        ...

    def metric(self, rows: Sequence[TrainingRow]) -> float:
        """The dev metric on some rows; larger is better."""
        ...

    def train(self, on: bool) -> None:
        """Switch between training mode (dropout) and evaluation mode."""
        ...

    def save(self, folder: Path) -> list[str]:
        """Write the files of the model into a folder; returns their names."""
        ...


@dataclass(frozen=True, slots=True)
class Inputs:
    """The inputs of a run other than its configuration and rows."""

    cache: Path
    """Folder for cached hidden states of frozen backbones."""
    statistics: Mapping[str, Sequence[str]]
    """The passages of each source by name, for statistics such as idf."""
    entities: tuple[Path, ...] = ()
    """Files of entity vectors (`hyblink kb export-vectors`)."""
    init_from: Path | None = None
    """The folder of an earlier model whose weights are the starting point; None starts from the base model."""


Say = Callable[[str], None]


class Family(ABC):
    """A model family: an entry of the registry. Methods with a body are defaults that fit most families."""

    kind: ClassVar[str]
    """The name of the family, as in `RunConfig.kind`."""
    config: ClassVar[type[RunConfig]]
    """The configuration class, with the fields of this family."""
    losses: ClassVar[tuple[str, ...]]
    tunings: ClassVar[tuple[str, ...]] = ("full", "lora")

    def check(self, config: RunConfig) -> None:
        """Raises InvalidInputError for invalid options."""
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
        """Raises InvalidInputError if the inputs do not fit the configuration."""
        if inputs.init_from is not None and not self.supports_init_from(config):
            raise InvalidInputError(
                "such a model does not go on from an adapter",
                received=f"{config.recipe}, tuning {config.tuning}",
                expected="a VDR head or a LoRA adapter; a whole model is its own base (--set base=FOLDER)",
            )

    def supports_init_from(self, config: RunConfig) -> bool:
        """Whether a run with this configuration can start from the weights of an earlier model (`init_from`)."""
        return config.tuning == "lora"

    def read(self, path: Path, split: str) -> Sequence[TrainingRow]:
        """Read the training rows of a source. Raises NotFoundError or InvalidInputError."""
        return read_rows(path, split)

    def rows(self, config: RunConfig, loaded: Loaded, say: Say) -> tuple[RunConfig, list[TrainingRow]]:
        """The rows to train on, and the configuration adapted to them (for example without hard negatives).

        `say` is called with messages about rows that are left out.
        """
        return with_negatives(config, loaded.rows, say)

    def mines_every(self, config: RunConfig) -> int:
        """Steps between two refreshes of mined negatives (ANCE); 0 for never."""
        del config
        return 0

    @abstractmethod
    def trainable(self, config: RunConfig, inputs: Inputs, beside: Any = None) -> Trainable:
        """Build the model to train. `beside` is another model of the same run, whose caches it may share."""

    @abstractmethod
    def artifact(self, config: RunConfig) -> str:
        """The `kind` in the manifest of the finished model folder, which decides how it is loaded."""

    def manifest(self, config: RunConfig) -> dict[str, Any]:
        """Additional fields of the manifest."""
        del config
        return {}


def with_negatives(config: RunConfig, rows: Sequence[TrainingRow], say: Say) -> tuple[RunConfig, list[TrainingRow]]:
    """Drop rows without negatives. If no row has any, keep all rows and set `negatives` to 0 in the configuration."""
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
    """The rows with first-stage scores if `residual` is not 0, else all rows. Raises InvalidInputError if none has."""
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
