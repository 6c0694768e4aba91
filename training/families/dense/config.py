"""The configuration of a run of this family."""

from __future__ import annotations

from dataclasses import dataclass

from hyblink.training.run_config import InBatchConfig


@dataclass(frozen=True, slots=True)
class DenseConfig(InBatchConfig):
    """A bi-encoder's run."""

    kind: str = "dense"
