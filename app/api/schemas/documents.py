"""Bodies for documents."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import (
    BaseModel,
    Field,
    StrictBool,
    StrictStr,
)

from hyblink.app.api.schemas.common import COLLECTION, StrictBody


class BulkBody(StrictBody):
    """Documents to upsert. Each is checked by itself: a bad one is reported in its place, the others are stored."""

    documents: list[Any] = Field(
        description="Objects with id, title, text, lang, metadata, sections.",
        json_schema_extra={
            "items": {
                "type": "object",
                "required": ["id"],
                "properties": {
                    "id": {"type": "string", "minLength": 1, "maxLength": 512},
                    "title": {"type": "string", "maxLength": 4096},
                    "text": {"type": "string"},
                    "lang": {"type": "string"},
                    "metadata": {"type": "object"},
                    "sections": {
                        "type": "array",
                        "description": "The document's structure. Passages end where a section ends.",
                        "items": {
                            "type": "object",
                            "required": ["start"],
                            "properties": {
                                "start": {
                                    "type": "integer",
                                    "minimum": 0,
                                    "description": "In code points.",
                                },
                                "path": {"type": "array", "items": {"type": "string"}, "description": "Headings."},
                                "place": {"type": "string", "description": "Such as `page 3` or `#install`."},
                            },
                        },
                    },
                },
            }
        },
    )


class DeleteBody(StrictBody):
    """Which documents to delete: those with the `ids`, or all that pass the `filter`."""

    collection: StrictStr = COLLECTION
    ids: list[StrictStr] | None = Field(None, max_length=5000)
    filter: dict[str, Any] | None = Field(None, description="A metadata filter, as in a search.")
    dry_run: StrictBool = Field(False, description="Only say which would be deleted.")


class DeletedAnswer(BaseModel):
    """How many documents were deleted, or would be, and the first of their ids."""

    deleted: int
    dry_run: bool
    ids: list[str]


class ListedDocument(BaseModel):
    """A document without its text."""

    id: str
    title: str
    lang: str
    metadata: dict[str, Any]
    characters: int


class DocumentsAnswer(BaseModel):
    """Documents by id. `next` is the `after` of the following page, empty on the last one."""

    documents: list[ListedDocument]
    total: int
    next: str


class BulkItemAnswer(BaseModel):
    """The outcome for one document, in the request's order."""

    id: str
    status: Literal["created", "updated", "unchanged", "deleted", "not_found", "rejected"]
    passages: int
    code: str
    message: str


class BulkAnswer(BaseModel):
    """The outcome of a bulk request. The next search sees all accepted documents."""

    errors: bool
    generation: str
    change: int
    items: list[BulkItemAnswer]


class SectionAnswer(BaseModel):
    """A part of a document: where it begins in the text, the headings over it, and where it is in the original."""

    start: int
    path: list[str]
    place: str


class DocumentAnswer(BaseModel):
    """A document as it was sent."""

    id: str
    title: str
    text: str
    lang: str
    metadata: dict[str, Any]
    sections: list[SectionAnswer]
