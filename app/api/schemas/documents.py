"""Bodies for documents."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import (
    BaseModel,
    Field,
)

from hyblink.app.api.schemas.common import StrictBody


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
