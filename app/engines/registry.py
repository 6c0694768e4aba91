"""The port of an engine's catalog storage, on which `Catalog` is built."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol

from hyblink.app.core.ports.engine import Engine
from hyblink.app.core.ports.jobs import Records
from hyblink.app.core.types.collections import GenerationRecord

Json = dict[str, Any]


class Registry(Protocol):
    """The port of an engine's catalog storage: JSON documents per collection, and access to generations' data."""

    def names(self) -> list[str]:
        """The names of all collections that have a `collection` document."""
        ...

    def stored(self) -> list[str]:
        """The names of all collections of which anything is stored, even without a `collection` document."""
        ...

    def read(self, name: str, key: str) -> Json | None:
        """The document `key` of the collection `name`; None if there is none."""
        ...

    def write(self, name: str, key: str, value: Json) -> None:
        """Create or replace a document atomically: a reader sees the old or the new one."""
        ...

    def remove(self, name: str, key: str) -> None:
        """Delete a document if it exists."""
        ...

    def generations(self, name: str) -> list[str]:
        """The ids of all generations, unfinished ones included, ascending."""
        ...

    def profiles(self, name: str) -> list[int]:
        """The versions of all ranking profiles, ascending."""
        ...

    def drop(self, name: str, generation: str | None = None) -> None:
        """Delete a generation with its documents and data, or the whole collection if none is named."""
        ...

    def lock(self, name: str) -> AbstractContextManager[None]:
        """A context manager that holds the lock for changing a collection.

        Raises WriterConflictError if the lock is not free in time.
        """
        ...

    def moment(self, name: str, generation: str) -> AbstractContextManager[None]:
        """A context manager within which the documents that a search needs may be read in one batched request.

        `generation` is the one that is probably current; empty if unknown.
        """
        ...

    def published(self, name: str, generation: str) -> None:
        """A hook that is called after a generation became the current one."""
        ...

    def open(self, record: GenerationRecord) -> Engine:
        """Open a generation. Its empty store is created if it does not exist yet."""
        ...

    def records(self) -> Records:
        """The record store for jobs, claims, judgements and the like."""
        ...

    def close(self) -> None:
        """Close connections."""
        ...
