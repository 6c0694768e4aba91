"""The configuration of a run of this family."""

from __future__ import annotations

from dataclasses import dataclass

from hyblink.training.run_config import RunConfig


@dataclass(frozen=True, slots=True)
class SpanConfig(RunConfig):
    """A span head's run."""

    kind: str = "span"
    train_entities: bool = False
    """Learn together with the entities' tower, of the same weights; otherwise their vectors stay."""
