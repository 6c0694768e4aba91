"""The configuration of mention-tower training."""

from __future__ import annotations

from dataclasses import dataclass

from hyblink.training.run_config import InBatchConfig


@dataclass(frozen=True, slots=True)
class MentionConfig(InBatchConfig):
    """Options of a mention-tower run."""

    kind: str = "mention"
