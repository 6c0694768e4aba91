"""The configuration of cross-encoder training."""

from __future__ import annotations

from dataclasses import dataclass

from hyblink.app.core.errors import InvalidInputError
from hyblink.training.run_config import RerankerConfig, check_not_negative


@dataclass(frozen=True, slots=True)
class CrossEncoderConfig(RerankerConfig):
    """Options of a cross-encoder run."""

    kind: str = "cross"
    distil: float = 0.0
    """Distillation: weight of the teacher's scores in the listwise loss, for rows that have them."""
    teacher_temperature: float = 1.0
    gold_bonus: float = 1.0
    """Added to the teacher's score of the positive, because a human judgement counts more than the teacher."""

    def check(self) -> None:
        """Raises InvalidInputError for invalid values."""
        RerankerConfig.check(self)
        check_not_negative(self, "distil", "gold_bonus")
        if self.kept_layers and self.tuning != "lora":
            raise InvalidInputError(
                "only adapters that re-rank cut layers off", received=f"{self.kind}, {self.tuning}", expected="lora"
            )
