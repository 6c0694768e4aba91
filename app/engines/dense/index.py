"""The dense index on FAISS (Douze et al. 2024), derived from the store's float16 vectors.

A large base lies on disk, memory-mapped, of a type chosen by size or by setting. Newer vectors are in a small buffer
that is searched exactly. Removed rows are masked until the next build. Approximate types fetch more than k candidates
and re-score them, so every returned score is the exact inner product with the stored vector.

Types: ``flat`` (exact, float16 codes), ``hnsw`` (Malkov & Yashunin 2016), ``ivf,sq8`` and ``ivf,pq`` (Jégou et al.
2011). Shape suffixes: B base vectors, N buffered vectors, D dimension, K results.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np

from hyblink.app.core.errors import CorruptionError
from hyblink.app.core.ports.store import StoreReader, is_of_another_history
from hyblink.app.core.settings import DenseSettings
from hyblink.app.core.types.arrays import IdArray, VectorArray
from hyblink.app.engines.dense.kinds import build, choose_kind, on_first_gpu
from hyblink.app.engines.dense.mapped import MappedVectors
from hyblink.app.engines.dense.view import Base, FaissView, Mask, positions_of
from hyblink.app.engines.derived import AheadError, Bases

FORMAT = 1

_REBASE_ROWS = 20_000

_REBASE_SHARE = 0.25

_ALL = np.zeros(0, dtype=np.bool_)


class FaissIndex:
    """The dense index in `folder`, derived from the store's vectors.

    `encoder` is the id of the dense encoder and `kind` an index type or `auto`. A build of another encoder or type is
    discarded.
    """

    def __init__(self, folder: Path, encoder: str, dimension: int, kind: str, settings: DenseSettings) -> None:
        choose_kind(kind, 0, settings)
        self._bases = Bases(folder, FORMAT, f"{encoder} {kind}")
        self._folder = folder
        self._dimension = dimension
        self._kind = kind
        self._settings = settings
        self._lock = threading.RLock()
        self._reset()

    def _reset(self) -> None:
        self._base: Base | None = None
        self._base_alive: Mask = _ALL
        self._buffer = np.zeros((0, self._dimension), dtype=np.float32)
        self._rows: IdArray = np.zeros(0, dtype=np.int64)
        self._alive: Mask = _ALL
        self._applied, self._moment = -1, ""

    def catch_up(self, reader: StoreReader) -> FaissView:
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
            return FaissView(
                self._base,
                self._base_alive,
                self._rows,
                self._buffer[: len(self._rows)],
                self._alive,
                self._settings,
                self._dimension,
            )

    def _load(self, reader: StoreReader) -> None:
        self._reset()
        self._applied = 0
        self._bases.open_newest(reader, self._open)

    def forget(self) -> None:
        """Delete all builds. The index is made anew from the store when it is next asked for."""
        with self._lock:
            self._bases.clear()
            self._reset()

    def _open(self, change: int, path: Path, manifest: dict[str, Any]) -> None:
        import faiss

        self._reset()
        rows = np.load(path / "rows.npy", allow_pickle=False)
        try:
            vectors = MappedVectors(path / "vectors.npy")
            flag = faiss.IO_FLAG_MMAP if manifest["kind"].startswith("ivf") else faiss.IO_FLAG_MMAP_IFC
            index = faiss.read_index(str(path / "index.faiss"), flag)
        except (RuntimeError, ValueError) as error:
            raise CorruptionError(f"the dense index cannot be opened: {error}") from error
        if vectors.shape != (len(rows), self._dimension) or index.ntotal != len(rows):
            raise CorruptionError(
                "the dense index has the wrong shape",
                received=vectors.shape,
                expected=f"(n, {self._dimension})",
            )
        on_gpu = on_first_gpu(index, vectors.array_BD, manifest["kind"], self._settings) if self._settings.gpu else None
        self._base = Base(manifest["kind"], rows, vectors, index, float(manifest["phi"]), on_gpu)
        self._applied, self._moment = change, str(manifest.get("moment", ""))

    def _apply(self, reader: StoreReader) -> None:
        removed = reader.removed_since(self._applied) if self._applied else np.zeros(0, dtype=np.int64)
        if removed is None and self._applied < self._bases.newest_change() <= reader.change:
            self._load(reader)  # a build that another process published has these removals applied
            removed = reader.removed_since(self._applied)
        if removed is None:
            self.rebuild(reader)
            return
        added_rows, added = [], []
        for rows, vectors in reader.vectors_since(self._applied):
            if vectors.shape[1] != self._dimension:
                raise CorruptionError(
                    "the store holds vectors of another dimension",
                    received=vectors.shape[1],
                    expected=str(self._dimension),
                )
            added_rows.append(rows)
            added.append(vectors)
        if added:
            self._append(np.concatenate(added_rows), np.concatenate(added))
        if len(removed):
            self._remove(removed)
        self._applied, self._moment = reader.change, reader.moment
        base_rows = len(self._base.rows) if self._base else 0
        dead = int((~self._base_alive).sum())
        if max(len(self._rows), dead) > max(_REBASE_ROWS, _REBASE_SHARE * base_rows):
            self.rebuild(reader)

    def _append(self, rows: IdArray, vectors_ND: VectorArray) -> None:
        """Add vectors to the buffer, rows ascending. Older views keep their own slice or copy of the arrays."""
        old = len(self._rows)
        if old and rows[0] < self._rows[-1]:
            # Passages were encoded out of order: sort the buffer.
            joined = np.concatenate([self._rows, rows])
            order = np.argsort(joined, kind="stable")
            self._buffer = np.concatenate([self._buffer[:old], vectors_ND])[order]
            alive = np.concatenate([_full(self._alive, old), np.ones(len(rows), dtype=np.bool_)])[order]
            self._rows, self._alive = joined[order], alive
            return
        if old + len(rows) > len(self._buffer):
            grown = np.zeros((max(1024, 2 * (old + len(rows))), self._dimension), dtype=np.float32)
            grown[:old] = self._buffer[:old]
            self._buffer = grown
        self._buffer[old : old + len(rows)] = vectors_ND
        self._rows = np.concatenate([self._rows, rows])
        if len(self._alive):
            self._alive = np.concatenate([self._alive, np.ones(len(rows), dtype=np.bool_)])

    def _remove(self, removed: IdArray) -> None:
        if self._base is not None:
            _, at = positions_of(self._base.rows, removed, _ALL)
            if len(at):
                self._base_alive = _full(self._base_alive, len(self._base.rows)).copy()
                self._base_alive[at] = False
        _, at = positions_of(self._rows, removed, _ALL)
        if len(at):
            self._alive = _full(self._alive, len(self._rows)).copy()
            self._alive[at] = False

    def rebuild(self, reader: StoreReader, kind: str | None = None) -> None:
        """Rebuild the index from the stored vectors and publish it. `kind` overrides the configured type."""
        import faiss

        with self._lock:
            parts = [(some, block.astype(np.float16)) for some, block in reader.vectors_since(-1)]
            rows = np.concatenate([r for r, _ in parts]) if parts else np.zeros(0, dtype=np.int64)
            vectors = np.zeros((len(rows), self._dimension), dtype=np.float16)
            at = len(rows)
            while parts:  # frees each part after it is copied
                _, block = parts.pop()
                at -= len(block)
                vectors[at : at + len(block)] = block
            chosen = choose_kind(kind or self._kind, len(rows), self._settings)
            index, phi = build(chosen, vectors, self._settings)

            def write(folder: Path) -> list[str]:
                np.save(folder / "rows.npy", rows, allow_pickle=False)
                np.save(folder / "vectors.npy", vectors, allow_pickle=False)
                faiss.write_index(index, str(folder / "index.faiss"))
                return ["rows.npy", "vectors.npy", "index.faiss"]

            self._bases.publish(
                reader.change, reader.moment, write, self._open,
                kind=chosen, phi=phi, rows=len(rows), dimension=self._dimension,
            )  # fmt: skip

    def published_change(self) -> int:
        """The change counter of the newest published base; 0 if there is none."""
        return self._bases.newest_change()

    def check(self, reader: StoreReader) -> list[str]:
        """The differences from the store, as messages: damaged files, rows, and a sample of about 1,000 vectors."""
        problems = self._bases.problems()
        if problems:
            return problems
        view = self.catch_up(reader)
        base = np.zeros(0, dtype=np.int64)
        if view.base is not None:
            base = view.base.rows[_full(view.base_alive, len(view.base.rows))]
        found = np.concatenate([base, view.rows[_full(view.alive, len(view.rows))]])
        expected = reader.live_rows(encoded=True)
        problems = [
            *(f"dense misses {n} passages" for n in [len(np.setdiff1d(expected, found))] if n),
            *(f"dense has {n} passages that the store has not" for n in [len(np.setdiff1d(found, expected))] if n),
            *(f"dense has {n} passages twice" for n in [len(found) - len(np.unique(found))] if n),
        ]
        if not problems and len(expected):
            sample = expected[:: max(1, len(expected) // 1000)]
            rows, vectors = reader.vectors(sample)
            probe = vectors.mean(0)
            differ = int((np.abs(view.score(probe, rows) - vectors @ probe) > 1e-3).sum())
            problems += [f"dense holds other vectors than the store for {differ} of {len(rows)} sampled passages"] * (
                differ > 0
            )
        return problems

    @property
    def kind(self) -> str:
        """The index type of the open base; `buffer` if there is none yet."""
        return self._base.kind if self._base else "buffer"


def _full(mask: Mask, length: int) -> Mask:
    return mask if len(mask) else np.ones(length, dtype=np.bool_)
