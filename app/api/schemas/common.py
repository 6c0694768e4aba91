"""Base classes of bodies, and the error body."""

from __future__ import annotations

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
)

from hyblink.app.core.names import COLLECTION_PATTERN

COLLECTION = Field("default", description="The collection that is asked.", pattern=COLLECTION_PATTERN)


class StrictBody(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ErrorDetail(BaseModel):
    """An error. `code` is stable."""

    code: str
    message: str
    received: str | None = None
    expected: str | None = None


class ErrorAnswer(BaseModel):
    """The body of every error response."""

    error: ErrorDetail
