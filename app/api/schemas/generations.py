"""Bodies for generations."""

from __future__ import annotations

from pydantic import (
    BaseModel,
    Field,
    StrictStr,
)

from hyblink.app.api.schemas.common import COLLECTION, StrictBody
from hyblink.app.core.types.collections import GenerationRecord


class RebuildBody(StrictBody):
    """A generation to build."""

    collection: StrictStr = COLLECTION
    note: StrictStr = Field("", max_length=200, description="Why.")


class GenerationsAnswer(BaseModel):
    """A collection's generations, and the id of the current one."""

    current: str
    generations: list[GenerationRecord]
