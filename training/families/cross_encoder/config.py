"""The configuration of a run of this family."""

from __future__ import annotations

from dataclasses import dataclass

from hyblink.app.core.errors import InvalidInputError
from hyblink.training.run_config import RerankerConfig, check_not_negative


@dataclass(frozen=True, slots=True)
class CrossEncoderConfig(RerankerConfig):
    """A cross-encoder's run."""

    kind: str = "cross"
    distil: float = 0.0
    """Weight of the teacher's scores, where rows have them (listwise)."""
    teacher_temperature: float = 1.0
    gold_bonus: float = 1.0
    """Added to a teacher's score of the positive: a judgement outweighs it."""

    def check(self) -> None:
        """Raises InvalidInputError for what makes no sense."""
        RerankerConfig.check(self)
        check_not_negative(self, "distil", "gold_bonus")
        if self.kept_layers and self.tuning != "lora":
            raise InvalidInputError(
                "only adapters that re-rank cut layers off", received=f"{self.kind}, {self.tuning}", expected="lora"
            )
