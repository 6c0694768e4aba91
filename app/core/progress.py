"""Progress reporting. Long-running functions report stages and counts; the CLI and the job runner display them."""

from __future__ import annotations

from typing import Protocol


class Advance(Protocol):
    """Reports that `count` more items are done. `note` is shown beside the count, such as a rate."""

    def __call__(self, count: int = 1, note: str = "") -> None: ...


class Progress(Protocol):
    """Starts a stage of long-running work."""

    def __call__(self, stage: str, total: int | None = None) -> Advance:
        """Start a stage of `total` items, None if the number is unknown. Returns the function that counts them."""
        ...


def silent(stage: str, total: int | None = None) -> Advance:
    """A `Progress` that reports nothing."""
    del stage, total

    def advance(count: int = 1, note: str = "") -> None:
        del count, note

    return advance
