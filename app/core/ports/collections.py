"""The port of collections: what use cases ask of the catalog. One catalog serves every engine."""

from __future__ import annotations

from typing import Protocol

from hyblink.app.core.ports.engine import Engine, OpenedCollection
from hyblink.app.core.types.collections import Annotation, CollectionSpec, GenerationRecord
from hyblink.app.core.types.linking import LinkProfile, NameCounts


class Collections(Protocol):
    """Collections by name. Every method raises NotFoundError for an unknown collection."""

    def spec(self, name: str) -> CollectionSpec:
        """The choices that the collection was created with."""
        ...

    def generations(self, name: str) -> list[GenerationRecord]:
        """The records of all finished generations, oldest first."""
        ...

    def current(self, name: str) -> str:
        """The id of the serving generation."""
        ...

    def engine(self, name: str, generation: str | None = None) -> Engine:
        """The engine of a generation, by default of the serving one. It stays open for later calls."""
        ...

    def open(self, name: str, generation: str | None = None) -> OpenedCollection:
        """A generation, by default the serving one, with a snapshot of now and its ranking profile."""
        ...

    def annotation(self, name: str) -> Annotation | None:
        """How new documents are annotated with entities; None if they are not."""
        ...

    def link_profile(self, name: str) -> LinkProfile | None:
        """The newest link profile of a knowledge base; None if none was fitted."""
        ...

    def name_counts(self, name: str) -> NameCounts:
        """What the names of a knowledge base were judged to mean; empty if nothing was counted."""
        ...
