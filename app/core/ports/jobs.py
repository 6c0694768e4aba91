"""Ports of the job queue and of the record store, which keeps small JSON documents such as job states."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Record:
    """A small JSON document: a job, a claim on work, a dead letter, a relevance judgement.

    `version` counts its writes from 1; 0 means not stored yet. `list` sorts the records of one kind by id.
    """

    kind: str
    id: str
    body: Mapping[str, Any]
    state: str = ""
    collection: str = ""
    version: int = 0


class Records(Protocol):
    """The record store, shared by all processes of an installation."""

    def problems(self) -> list[str]:
        """What is wrong with the stored records, as messages; empty if nothing is."""
        ...

    def time(self) -> float:
        """Seconds since 1970 by the clock of the store, which all machines share: theirs may differ by hours."""
        ...

    def get(self, kind: str, record_id: str) -> Record | None:
        """The stored record; None if there is none."""
        ...

    def put(self, record: Record) -> Record:
        """Write a record with optimistic locking. Returns it with its new version.

        The stored version must equal `record.version`; 0 means that no record may exist yet. Raises ConflictError if
        another writer has changed or removed it.
        """
        ...

    def add(self, records: Sequence[Record]) -> None:
        """Store many records without a version check, replacing those that exist."""
        ...

    def remove(self, kind: str, ids: Sequence[str]) -> int:
        """Delete records. Returns how many of them existed."""
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
        """At most `limit` records of a kind, by descending id.

        `states` and `collection` limit them; no states and None allow all. `before` is the last id of the previous
        page: only smaller ids are returned.
        """
        ...

    def count(self, kind: str, *, states: Sequence[str] = (), collection: str | None = None) -> int:
        """The number of records that `list` would return without a limit."""
        ...

    def close(self) -> None: ...


def remove_older(records: Records, kind: str, before: str, page: int = 1000) -> int:
    """Delete the records of a kind with ids below `before`; return how many there were."""
    gone = 0
    while found := records.list(kind, before=before, limit=page):
        gone += records.remove(kind, [item.id for item in found])
        if len(found) < page:
            break
    return gone


class Jobs(Protocol):
    """The job queue. Messages carry ids only, and tasks are idempotent, so a message may be delivered twice."""

    def encode(self, collection: str, generation: str, rows: Iterable[int]) -> None:
        """Queue passages for the dense and VDR encoders."""
        ...

    def annotate(self, collection: str) -> None:
        """Queue a collection's documents that are not annotated yet. Does nothing if it has no annotation option."""
        ...

    def run(self, job_id: str, kind: str, delay_s: float = 0.0) -> None:
        """Queue a job whose record is stored, to start after at least `delay_s` seconds."""
        ...

    def close(self) -> None:
        """Flush queued messages. If this process does the work itself, finish the current batch and stop."""
        ...
