"""The port of an open generation: its passage store and consistent snapshots of store and indexes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from hyblink.app.core.ports.store import PassageStore
from hyblink.app.core.ports.views import Snapshot
from hyblink.app.core.types.collections import GenerationRecord
from hyblink.app.core.types.ranking import RankingProfile


class IndexFollower(Protocol):
    """Updates the indexes in the background while an ingestion run writes to the store."""

    def nudge(self) -> None:
        """Report that something was written to the store. Returns at once."""
        ...

    def close(self) -> None:
        """Wait until the indexes include everything stored, then stop."""
        ...


class Engine(Protocol):
    """An open generation: its passage store and consistent snapshots of store and indexes."""

    @property
    def record(self) -> GenerationRecord:
        """The analyzer, encoders and index type of the generation."""
        ...

    @property
    def store(self) -> PassageStore: ...

    def snapshot(self) -> Snapshot:
        """A snapshot of now. It includes every write acknowledged before the call."""
        ...

    def replaced(self) -> bool:
        """Whether the data that was opened is gone, because a process deleted or recreated the generation."""
        ...

    def follow(self) -> IndexFollower:
        """Start updating the indexes in the background. The caller closes the follower."""
        ...

    def check(self, *, repair: bool = False) -> list[str]:
        """Compare the indexes with the store and return the differences as messages, none if all is well.

        With `repair`, an index that differs is rebuilt from the store.
        """
        ...

    def outdated(self) -> float:
        """The share of entries of replaced or deleted passages in the statistics of BM25, 0 to 1.

        They are not found, but counted, so that scores differ a little, until they are merged away.
        """
        ...

    def tidy(self, more_than: float | None = None, *, patience_s: float = 0.0) -> None:
        """Merge such entries away if their share is larger than `more_than`.

        None is a share that is worth the work while others search. What a search under way may still need stays.
        Waits at most `patience_s` seconds until an engine lets go of what its replicas might need.
        """
        ...

    def compact(self, *, patience_s: float = 0.0) -> None:
        """Merge recent updates into the indexes and purge removed passages.

        Until then removed passages stay in BM25's statistics. An engine that must keep them while replicas may still
        need them to recover waits for that, at most `patience_s` seconds.
        """
        ...

    def close(self) -> None:
        """Release the store and the indexes."""
        ...


@dataclass(frozen=True, slots=True)
class OpenedCollection:
    """What a search runs on: an open generation, a snapshot of it and its ranking profile."""

    engine: Engine
    snapshot: Snapshot
    profile: RankingProfile
