"""The configuration of a run of this family."""

from __future__ import annotations

from dataclasses import dataclass

from hyblink.training.run_config import InBatchConfig


@dataclass(frozen=True, slots=True)
class MentionConfig(InBatchConfig):
    """A mention tower's run."""

    kind: str = "mention"
