"""Bodies for retrainings, their schedules, and trained models."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import (
    BaseModel,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
)

from hyblink.app.api.schemas.common import COLLECTION, StrictBody


class GateBody(StrictBody):
    """The bounds that a candidate must meet to be published, tested one-sided at 95 % on paired differences."""

    worse: float = Field(0.02, ge=0, le=1, description="With all signals nDCG@10 may fall by at most so much.")
    gain: float = Field(
        0.0, ge=-1, le=1, description="By the trained signal alone it rises by more, on held-out questions."
    )
    least_overlap: float = Field(
        0.5, ge=0, le=1, description="Least mean rank-biased overlap of the first ten documents with today's."
    )
    least_judged: StrictInt = Field(
        20, ge=0, le=10_000, description="With fewer judged queries a person has to approve it."
    )


class PlanBody(StrictBody):
    """The parameters of a retraining."""

    collection: StrictStr = COLLECTION
    target: Literal["vdr"] = Field("vdr", description="What is trained anew: the encoder of term weights.")
    options: dict[StrictStr, StrictStr] = Field(
        default_factory=dict, max_length=50, description="Changes of the recipe `vdr_again`, such as `steps`."
    )
    rows: StrictInt = Field(2000, ge=1, le=100_000, description="Most generated questions that are learned from.")
    held_out: StrictInt = Field(400, ge=0, le=10_000, description="Most generated questions that are held out.")
    clicks: StrictBool = Field(True, description="Learn from clicks as well (`hyblink judgements from-clicks`).")
    days: float = Field(0.0, ge=0, le=36_600, description="Only from clicks of so many days; 0: of all.")
    publish: Literal["approve", "auto"] = Field(
        "approve", description="`auto`: what passes the gate answers at once, if enough queries are judged."
    )
    gate: GateBody = GateBody()

    def params(self) -> dict[str, Any]:
        """Return the parameters to store in the job."""
        return self.model_dump(exclude={"collection", "every_hours"})


class RetrainBody(PlanBody):
    """A retraining to start."""


class ScheduleBody(PlanBody):
    """A retraining to repeat periodically."""

    every_hours: float = Field(ge=0.25, le=8784, description="Hours from one to the next.")


class ScheduleAnswer(BaseModel):
    """The schedule of a collection's retrainings: interval, next time and parameters."""

    collection: str
    every_hours: float
    plan: dict[str, Any]
    by: str
    next: str


class ModelAnswer(BaseModel):
    """A trained model."""

    name: str
    kind: str
    recipe: str
    parent: str
    created: str
    promoted: bool


class ModelsAnswer(BaseModel):
    """Trained models."""

    models: list[ModelAnswer]
