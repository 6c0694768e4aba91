"""An open generation: its store, and snapshots of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from hyblink.app.core.ports.store import PassageStore
from hyblink.app.core.ports.views import Snapshot
from hyblink.app.core.types.collections import GenerationRecord
from hyblink.app.core.types.ranking import RankingProfile


class IndexFollower(Protocol):
    """Keeps the indexes up with a run that is writing, on threads or processes of its own."""

    def nudge(self) -> None:
        """There is something new in the store."""
        ...

    def close(self) -> None:
        """Wait until everything stored is applied."""
        ...


class Engine(Protocol):
    """An open generation: its store, and snapshots of it."""

    @property
    def record(self) -> GenerationRecord: ...

    @property
    def store(self) -> PassageStore: ...

    def snapshot(self) -> Snapshot:
        """The present: everything acknowledged before the call is in it."""
        ...

    def replaced(self) -> bool:
        """Whether the generation's data is no longer what was opened: deleted, or made anew by another process."""
        ...

    def follow(self) -> IndexFollower: ...

    def check(self, *, repair: bool = False) -> list[str]:
        """Compare store and indexes; what differs, in words. With `repair`, rebuild what does."""
        ...

    def compact(self, *, patience_s: float = 0.0) -> None:
        """Fold what came since the indexes were last built into them, and drop what was removed.

        Until then removed passages stay in BM25's statistics. An engine that keeps them for copies which may have to
        recover waits up to `patience_s` until it need not any more.
        """
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Present:
    """What answers a search: a generation, one moment of it, and how it ranks."""

    engine: Engine
    snapshot: Snapshot
    profile: RankingProfile
