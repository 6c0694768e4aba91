"""Keys and the audit log."""

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
    """A key to make."""

    role: Literal["search", "ingest", "admin"]
    collections: list[StrictStr] = Field(default_factory=list, max_length=1000, description="Only these; empty: all.")
    note: StrictStr = Field("", max_length=200, description="Whose it is.")
    per_minute: StrictInt = Field(0, ge=0, le=1_000_000, description="Requests a minute; 0: as the server is set.")
    max_bytes: StrictInt = Field(0, ge=0, le=2**40, description="Largest body; 0: as the server is set.")


class WhoAnswer(BaseModel):
    """A caller's key: what it may do, in which collections (none named: all). No key at an open door."""

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
    """A key with its secret, shown this once."""

    key: str


class ActAnswer(BaseModel):
    """An administrator's act."""

    id: str
    at: str
    by: str
    act: str
    outcome: str
    request_id: str


class AuditAnswer(BaseModel):
    """Acts, the newest first."""

    acts: list[ActAnswer]
