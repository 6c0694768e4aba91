"""Bodies for health and readiness."""

from __future__ import annotations

from typing import Literal

from pydantic import (
    BaseModel,
    Field,
)


class HealthAnswer(BaseModel):
    """The process is alive."""

    status: Literal["ok"]


class ReadyAnswer(BaseModel):
    """Whether the service can answer requests. `problems` prevent this; `degraded` collections lack their encoders."""

    ready: bool
    problems: list[str]
    degraded: list[str] = Field(default_factory=list, description="Collections whose encoder is missing: no vectors.")
    collections: dict[str, str]
