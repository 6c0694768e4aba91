"""The configuration of late-interaction training."""

from __future__ import annotations

from dataclasses import dataclass

from hyblink.training.run_config import RerankerConfig


@dataclass(frozen=True, slots=True)
class LateInteractionConfig(RerankerConfig):
    """Options of a late-interaction run."""

    kind: str = "late"
