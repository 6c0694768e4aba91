"""The configuration of a run of this family."""

from __future__ import annotations

from dataclasses import dataclass

from hyblink.training.run_config import RerankerConfig


@dataclass(frozen=True, slots=True)
class LateInteractionConfig(RerankerConfig):
    """A late-interaction run."""

    kind: str = "late"
