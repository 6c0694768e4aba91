"""How far something is: whoever does long work tells stages and counts; doors show them as they like."""

from __future__ import annotations

from typing import Protocol


class Advance(Protocol):
    """Tells that so many more are done; `note` stands beside the count, such as a rate."""

    def __call__(self, count: int = 1, note: str = "") -> None: ...


class Progress(Protocol):
    """Begins stages."""

    def __call__(self, stage: str, total: int | None = None) -> Advance:
        """A stage of so many things; None where nobody knows how many."""
        ...


def silent(stage: str, total: int | None = None) -> Advance:
    """Tells nobody."""
    del stage, total

    def advance(count: int = 1, note: str = "") -> None:
        del count, note

    return advance
