"""Bodies for API keys and the audit log."""

from __future__ import annotations

from typing import Literal

from pydantic import (
    BaseModel,
    Field,
    StrictInt,
    StrictStr,
)

from hyblink.app.api.schemas.common import StrictBody


class KeyBody(StrictBody):
    """An API key to create."""

    role: Literal["search", "ingest", "admin"]
    collections: list[StrictStr] = Field(default_factory=list, max_length=1000, description="Only these; empty: all.")
    note: StrictStr = Field("", max_length=200, description="Whose it is.")
    per_minute: StrictInt = Field(0, ge=0, le=1_000_000, description="Requests a minute; 0: as the server is set.")
    max_bytes: StrictInt = Field(0, ge=0, le=2**40, description="Largest body; 0: as the server is set.")


class WhoAnswer(BaseModel):
    """The caller's key, role and collections. Empty `collections` means all; an empty key means an anonymous caller."""

    key: str
    role: Literal["search", "ingest", "admin"]
    collections: list[str]
    note: str


class KeyAnswer(BaseModel):
    """A key without its secret."""

    id: str
    role: str
    created: str
    collections: list[str]
    revoked: bool
    note: str
    per_minute: int
    max_bytes: int


class KeysAnswer(BaseModel):
    """Keys."""

    keys: list[KeyAnswer]


class NewKeyAnswer(BaseModel):
    """A key with its secret, which cannot be shown again."""

    key: str


class ActAnswer(BaseModel):
    """An entry of the audit log."""

    id: str
    at: str
    by: str
    act: str
    outcome: str
    request_id: str


class AuditAnswer(BaseModel):
    """Entries of the audit log, newest first."""

    acts: list[ActAnswer]
