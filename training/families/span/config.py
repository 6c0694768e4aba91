"""The configuration of span-head training."""

from __future__ import annotations

from dataclasses import dataclass

from hyblink.training.run_config import RunConfig


@dataclass(frozen=True, slots=True)
class SpanConfig(RunConfig):
    """Options of a span-head run."""

    kind: str = "span"
    train_entities: bool = False
    """Also train the entity tower, which shares the weights. Otherwise entity vectors are fixed."""
