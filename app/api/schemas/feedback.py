"""Judgements and clicks."""

from __future__ import annotations

from pydantic import (
    BaseModel,
    Field,
    StrictInt,
    StrictStr,
)

from hyblink.app.api.schemas.common import COLLECTION, StrictBody


class JudgementBody(StrictBody):
    """How well a document answers a query."""

    query: StrictStr = Field(min_length=1, max_length=2000)
    document_id: StrictStr = Field(min_length=1, max_length=512)
    grade: StrictInt = Field(ge=0, le=3, description="0: not at all, to 3: perfectly.")


class JudgementsBody(StrictBody):
    """Judgements of a collection."""

    collection: StrictStr = COLLECTION
    judgements: list[JudgementBody] = Field(max_length=10_000)


class ClickBody(StrictBody):
    """A click."""

    search_id: StrictStr = Field(min_length=1, max_length=100, description="Of the answer to a search with `log`.")
    document_id: StrictStr = Field(min_length=1, max_length=512)


class StoredAnswer(BaseModel):
    """How many were stored."""

    stored: int


class QrelsAnswer(BaseModel):
    """Queries by id, and grades by query and document."""

    queries: dict[str, str]
    qrels: dict[str, dict[str, int]]


class ClickAnswer(BaseModel):
    """The rank at which the document stood."""

    rank: int


class FromClicksAnswer(BaseModel):
    """What became of a click log; `examination` is how often each rank is looked at, the first being 1."""

    searches: int
    clicks: int
    judged: int
    examination: list[float]
