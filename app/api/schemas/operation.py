"""Whether the service is alive and ready."""

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
    """Whether requests can be answered, and what is missing where they cannot."""

    ready: bool
    problems: list[str]
    degraded: list[str] = Field(default_factory=list, description="Collections whose encoder is missing: no vectors.")
    collections: dict[str, str]
