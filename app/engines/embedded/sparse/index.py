"""The inverted index of sparse vectors: exact dot products over stored term weights.

Queries are evaluated term at a time over posting lists: each query token adds ``query weight * passage weight`` to an
array of scores, one entry per passage, and a heap keeps the best k. Up to a few hundred thousand passages this is
fast without upper bounds for pruning.

A large memory-mapped base on disk and a few small segments in memory hold the passages. Neighbouring segments of
similar size are merged, so each passage is copied a logarithmic number of times.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hyblink.app.core.ports.store import StoreReader, is_of_another_history
from hyblink.app.core.types.arrays import IdArray, TermBatch, TermWeights
from hyblink.app.engines.derived import AheadError, Bases
from hyblink.app.engines.embedded.sparse.segment import EMPTY_SEGMENT, Part, Segment, build_segment, merge_segments
from hyblink.app.engines.embedded.sparse.view import SparseView, _member

FORMAT = 1

_REBASE_ROWS = 20_000

_REBASE_SHARE = 0.25
_SAMPLE = 2000

_ALL = np.zeros(0, dtype=np.bool_)


class SparseIndex:
    """The sparse index in `folder`, derived from the store's bags of tokens or, with `encoded`, from VDR weights.

    `encoder` is the id of the bag or VDR encoder. A build of another encoder is discarded.
    """

    def __init__(self, folder: Path, encoder: str, *, encoded: bool = False) -> None:
        self._bases = Bases(folder, FORMAT, encoder)
        self._name = folder.name
        self._encoded = encoded
        self._lock = threading.RLock()
        self._parts: list[Part] = []
        self._base_rows = 0
        self._applied, self._moment = -1, ""

    def catch_up(self, reader: StoreReader) -> SparseView:
        """Apply the store's changes up to the reader's snapshot and return a view of exactly that snapshot.

        Raises AheadError if the index already includes newer writes.
        """
        with self._lock:
            if is_of_another_history(reader, self._applied, self._moment):
                self._applied = -1
            if self._applied < 0:
                self._load(reader)
            if self._applied > reader.change:
                raise AheadError(self._applied)
            if self._applied < reader.change:
                self._apply(reader)
            return SparseView(tuple(self._parts))

    def _since(self, reader: StoreReader, change: int) -> Iterator[TermBatch]:
        return reader.weights_since(change) if self._encoded else reader.terms_since(change)

    def _load(self, reader: StoreReader) -> None:
        self._parts, self._base_rows, self._applied, self._moment = [], 0, 0, ""
        self._bases.open_newest(reader, self._open)

    def forget(self) -> None:
        """Delete all builds. The index is made anew from the store when it is next asked for."""
        with self._lock:
            self._bases.clear()
            self._parts, self._base_rows, self._applied, self._moment = [], 0, -1, ""

    def _open(self, change: int, path: Path, manifest: dict[str, Any]) -> None:
        arrays = {name: np.load(path / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in Segment.__slots__}
        segment = Segment(**arrays)
        self._parts = [(segment, _ALL)]
        self._base_rows, self._applied = len(segment.rows), change
        self._moment = str(manifest.get("moment", ""))

    def _apply(self, reader: StoreReader) -> None:
        if self._applied < self._bases.newest_change() <= reader.change:
            self._load(reader)  # another process has published a newer base
        removed = reader.removed_since(self._applied) if self._applied else np.zeros(0, dtype=np.int64)
        if removed is None:
            self.rebuild(reader)
            return
        parts = _gathered(self._parts, self._since(reader, self._applied), on_disk=self._base_rows > 0)
        if len(removed):
            parts = [(segment, _without(segment, alive, removed)) for segment, alive in parts]
        self._parts, self._applied, self._moment = parts, reader.change, reader.moment
        loose = sum(len(segment.rows) for segment, _ in self._parts) - self._base_rows
        dead = sum(int((~alive).sum()) for _, alive in self._parts)
        if max(loose, dead) > max(_REBASE_ROWS, _REBASE_SHARE * self._base_rows):
            self._publish(self._parts, self._applied, self._moment)

    def rebuild(self, reader: StoreReader) -> None:
        """Rebuild the index from the store and publish it as the new base."""
        with self._lock:
            self._publish(_gathered([], self._since(reader, -1), on_disk=False), reader.change, reader.moment)

    def published_change(self) -> int:
        """The change counter of the newest published base; 0 if there is none."""
        return self._bases.newest_change()

    def compact(self, reader: StoreReader) -> None:
        """Merge the base and all segments in memory, without removed passages, and publish the result as one base."""
        with self._lock:
            self.catch_up(reader)
            behind = self._bases.newest_change() < self._applied
            if behind or len(self._parts) != 1 or not self._base_rows or len(self._parts[0][1]):
                self._publish(self._parts, self._applied, self._moment)

    def _publish(self, parts: Sequence[Part], change: int, moment: str) -> None:
        parts = list(parts) or [(EMPTY_SEGMENT, _ALL)]
        while len(parts) > 1:
            parts[-2:] = [(merge_segments(*parts[-2:]), _ALL)]
        segment = parts[0][0] if not len(parts[0][1]) else merge_segments(parts[0], (EMPTY_SEGMENT, _ALL))

        def write(folder: Path) -> list[str]:
            for name in Segment.__slots__:
                np.save(folder / f"{name}.npy", getattr(segment, name), allow_pickle=False)
            return [f"{name}.npy" for name in Segment.__slots__]

        self._bases.publish(change, moment, write, self._open, rows=len(segment.rows), postings=len(segment.docs))

    def check(self, reader: StoreReader) -> list[str]:
        """The differences from the store and the defects of the files, as messages."""
        problems = self._bases.problems()
        if problems:
            return problems
        view = self.catch_up(reader)
        found = np.concatenate(
            [segment.rows[alive] if len(alive) else segment.rows for segment, alive in view.parts]
            or [np.zeros(0, dtype=np.int64)]
        )
        expected = reader.live_rows(encoded=self._encoded)
        problems = [
            *(f"{self._name} misses {n} passages" for n in [len(np.setdiff1d(expected, found))] if n),
            *(
                f"{self._name} has {n} passages that the store has not"
                for n in [len(np.setdiff1d(found, expected))]
                if n
            ),
            *(f"{self._name} has {n} passages twice" for n in [len(found) - len(np.unique(found))] if n),
        ]
        if not problems and len(expected):
            wrong, looked_at = self._sampled(reader, view, len(expected))
            if wrong:
                other = f"{self._name} holds other weights than the store"
                problems.append(f"{other} for {wrong} of {looked_at} sampled passages")
        return problems

    def _sampled(self, reader: StoreReader, view: SparseView, count: int) -> tuple[int, int]:
        """How many of about `_SAMPLE` passages have other weights than the store, and how many were looked at."""
        step = max(1, count // _SAMPLE)
        wrong = looked_at = seen = 0
        for batch in self._since(reader, -1):
            at = np.arange((-seen) % step, len(batch.rows), step)
            seen += len(batch.rows)
            if not len(at):
                continue
            spans = [slice(int(batch.offsets[place]), int(batch.offsets[place + 1])) for place in at]
            weights = [batch.weights[span] if len(batch.weights) else np.ones(span.stop - span.start) for span in spans]
            tokens = np.unique(np.concatenate([batch.ids[span] for span in spans])).astype(np.int32)
            everything = TermWeights(tokens, np.ones(len(tokens), dtype=np.float32))
            stored = np.array([float(own.sum()) for own in weights])
            scores = view.score(everything, batch.rows[at])
            wrong += int((np.abs(scores - stored) > 1e-3 * np.maximum(1.0, stored)).sum())
            looked_at += len(at)
        return wrong, looked_at


def _gathered(parts: Sequence[Part], batches: Iterable[TermBatch], *, on_disk: bool) -> list[Part]:
    """`parts` and one new segment per batch. Neighbouring segments in memory of similar size are merged.

    With `on_disk` the first part is the base, which is not merged.
    """
    gathered = list(parts)
    for batch in batches:
        gathered.append((build_segment(batch), _ALL))
        while len(gathered) > 1 + on_disk:
            (left, alive), (right, _) = gathered[-2:]
            if len(alive) or len(left.rows) > 2 * len(right.rows):
                break
            gathered[-2:] = [(merge_segments(*gathered[-2:]), _ALL)]
    return gathered


def _without(segment: Segment, alive: npt.NDArray[np.bool_], removed: IdArray) -> Any:
    gone = _member(segment.rows, removed)
    if not gone.any():
        return alive
    return ~gone if not len(alive) else alive & ~gone
