"""Bodies for judgements and clicks."""

from __future__ import annotations

from pydantic import (
    BaseModel,
    Field,
    StrictInt,
    StrictStr,
)

from hyblink.app.api.schemas.common import COLLECTION, StrictBody


class JudgementBody(StrictBody):
    """A relevance grade of a document for a query."""

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
    """The number of stored judgements."""

    stored: int


class QrelsAnswer(BaseModel):
    """Queries by id, and grades by query and document."""

    queries: dict[str, str]
    qrels: dict[str, dict[str, int]]


class ClickAnswer(BaseModel):
    """The rank of the clicked document on its result page."""

    rank: int


class FromClicksAnswer(BaseModel):
    """The outcome of deriving judgements from clicks. `examination` is the examination probability by rank, 1 first."""

    searches: int
    clicks: int
    judged: int
    examination: list[float]
