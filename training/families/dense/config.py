"""The configuration of bi-encoder training."""

from __future__ import annotations

from dataclasses import dataclass

from hyblink.training.run_config import InBatchConfig


@dataclass(frozen=True, slots=True)
class DenseConfig(InBatchConfig):
    """Options of a bi-encoder run."""

    kind: str = "dense"
