"""Work that is queued, and small records about work and people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Record:
    """A small JSON document about work or people: a job, a claim, a dead letter, a judgement.

    `version` counts its writes from 1; 0 is one that has not been stored. Ids of a kind sort as they should be listed.
    """

    kind: str
    id: str
    body: Mapping[str, Any]
    state: str = ""
    collection: str = ""
    version: int = 0


class Records(Protocol):
    """Where such documents are kept, seen by every process of an installation."""

    def get(self, kind: str, record_id: str) -> Record | None:
        """The record as it is now."""
        ...

    def put(self, record: Record) -> Record:
        """Write over exactly the version that `record` names, 0 where there is none yet; what is stored then.

        Raises ConflictError where somebody else has written or removed it.
        """
        ...

    def add(self, records: Sequence[Record]) -> None:
        """Store many records, over whatever is there under their ids."""
        ...

    def remove(self, kind: str, ids: Sequence[str]) -> int:
        """Delete records; how many were there."""
        ...

    def list(
        self,
        kind: str,
        *,
        states: Sequence[str] = (),
        collection: str | None = None,
        before: str | None = None,
        limit: int = 100,
    ) -> list[Record]:
        """Records in descending order of their ids, those before an id; only of some states or of a collection."""
        ...

    def count(self, kind: str, *, states: Sequence[str] = (), collection: str | None = None) -> int: ...

    def close(self) -> None: ...


class Jobs(Protocol):
    """Work that is queued: ids only, idempotent, safe to deliver twice."""

    def encode(self, collection: str, generation: str, rows: Iterable[int]) -> None: ...

    def annotate(self, collection: str) -> None:
        """Queue the documents of a collection that are not annotated yet; nothing where it is not to be."""
        ...

    def run(self, job_id: str, kind: str, delay_s: float = 0.0) -> None:
        """Queue a job that has a record."""
        ...

    def close(self) -> None:
        """Send what is queued; where this process does the work itself, stop after the block in hand."""
        ...
