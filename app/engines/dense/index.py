"""The dense index on FAISS (Douze et al. 2024), derived from the store's float16 vectors.

One large base on disk, memory-mapped, of a type chosen by size or by setting; vectors that came since in a small
exact buffer; removed rows masked until the next build. Whatever the type, every score that leaves here is the exact
inner product with the stored vector: approximate types fetch more than asked and re-score.

Types: ``flat`` (exact, float16 codes), ``hnsw`` (Malkov & Yashunin 2016), ``ivf,sq8`` and ``ivf,pq`` (Jégou et al.
2011). Shape suffixes: B base vectors, N buffered vectors, D dimension, K results.
"""

from __future__ import annotations

import logging
import math
import mmap
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from hyblink.app.core.errors import CorruptionError, InvalidInputError
from hyblink.app.core.ports.store import Selection, StoreReader
from hyblink.app.core.settings import DenseSettings
from hyblink.app.core.types.arrays import IdArray, ScoreArray, VectorArray
from hyblink.app.core.types.ranking import EMPTY, Scored
from hyblink.app.engines.derived import AheadError, Bases, top

FORMAT = 1
DenseKind = Literal["flat", "hnsw", "ivf,sq8", "ivf,pq"]
KINDS: tuple[DenseKind, ...] = ("flat", "hnsw", "ivf,sq8", "ivf,pq")
_REBASE_ROWS = 20_000
_REBASE_SHARE = 0.25
_TRAIN_PER_LIST = 64
_PQ_EXTRA_RESCORE = 4
_FIRST_OVERFETCH = 3
_MOST_OVERFETCH = 64
_Mask = npt.NDArray[np.bool_]
_MOST_MAPPED = 2**29
_AROUND = 2**21
"""Bytes that a kernel maps around one that is touched, at most: a huge page."""
_ALL = np.zeros(0, dtype=np.bool_)
_GPU = threading.Lock()
log = logging.getLogger(__name__)


def choose_kind(wanted: str, rows: int, settings: DenseSettings) -> DenseKind:
    """The index type for so many vectors: exact while it is cheap, then 8-bit codes, then product codes."""
    if wanted == "auto":
        if rows <= settings.flat_below:
            return "flat"
        return "ivf,sq8" if rows <= settings.pq_above else "ivf,pq"
    for kind in KINDS:
        if wanted == kind:
            # Clustering wants more vectors than lists; below that exact search is both better and faster.
            return "flat" if kind.startswith("ivf") and rows < 1000 else kind
    raise InvalidInputError(
        "unknown dense index", received=wanted, expected=f"auto, knn (on OpenSearch) or one of {', '.join(KINDS)}"
    )


def _lists(rows: int) -> int:
    return max(16, min(65536, 1 << round(math.log2(2.4 * max(rows, 1) ** 0.5))))


def visited_lists(lists: int, settings: DenseSettings) -> int:
    """How many of the lists a search visits: an eighth finds .98 of the best 64 even of texts unlike any passage."""
    return min(lists, settings.ivf_nprobe or max(96, lists // 8))


def _pq_parts(dimension: int) -> int:
    return max(m for m in range(1, dimension // 4 + 1) if dimension % m == 0)


def build(kind: DenseKind, vectors_BD: npt.NDArray[np.float16], settings: DenseSettings) -> tuple[Any, float]:
    """A FAISS index over the vectors, and phi: the squared norm that HNSW's extra dimension fills up to, or 0.

    HNSW walks in a metric space. Where norms differ, each vector gets one more coordinate sqrt(phi - |x|²) and is
    searched by L2 distance, which then orders as the inner product does (Bachrach et al. 2014); where all norms
    are equal none is needed.
    """
    import faiss

    rows, dimension = vectors_BD.shape
    metric = faiss.METRIC_INNER_PRODUCT
    phi = 0.0
    if kind == "flat":
        index: Any = faiss.IndexScalarQuantizer(dimension, faiss.ScalarQuantizer.QT_fp16, metric)
    elif kind == "hnsw":
        norms = np.concatenate([(block.astype(np.float32) ** 2).sum(1) for block in _blocks(vectors_BD)] or [[1.0]])
        if float(norms.max() - norms.min()) > 1e-2 * float(norms.max()):
            phi = float(norms.max())
            dimension, metric = dimension + 1, faiss.METRIC_L2
        index = faiss.IndexHNSWSQ(dimension, faiss.ScalarQuantizer.QT_fp16, settings.hnsw_m, metric)
        index.hnsw.efConstruction = settings.hnsw_ef_construction
        index.train(np.zeros((1, dimension), dtype=np.float32))
    else:
        lists = _lists(rows)
        quantizer = faiss.IndexFlatIP(dimension)
        if kind == "ivf,sq8":
            index = faiss.IndexIVFScalarQuantizer(quantizer, dimension, lists, faiss.ScalarQuantizer.QT_8bit, metric)
        else:
            index = faiss.IndexIVFPQ(quantizer, dimension, lists, _pq_parts(dimension), 8, metric)
        if kind == "ivf,pq":
            index.pq.cp.niter = 8
            index.pq.cp.max_points_per_centroid = _TRAIN_PER_LIST
        index.cp.spherical = True
        index.cp.niter = 10
        index.cp.max_points_per_centroid = _TRAIN_PER_LIST
        index.cp.min_points_per_centroid = 1
        sample = np.random.default_rng(0).permutation(rows)[: max(lists * _TRAIN_PER_LIST, 16_384)]
        index.train(vectors_BD[np.sort(sample)].astype(np.float32))
    for block in _blocks(vectors_BD):
        chunk = block.astype(np.float32)
        if phi:
            rest = np.sqrt(np.maximum(phi - (chunk**2).sum(1, keepdims=True), 0.0))
            chunk = np.hstack([chunk, rest]).astype(np.float32)
        index.add(chunk)
    return index, phi


def _blocks(vectors: npt.NDArray[np.float16], size: int = 65_536) -> list[npt.NDArray[np.float16]]:
    return [vectors[at : at + size] for at in range(0, len(vectors), size)]


class MappedVectors:
    """A float16 matrix of shape (B, D), memory-mapped from a .npy file; at most `most` bytes stay mapped.

    Where one row is touched the kernel maps what it has around it as well: of millions of vectors nearly all would
    soon count as this process's memory. What is let go is mapped again from the kernel's cache when it is needed.
    Raises ValueError where the file is no such matrix.
    """

    def __init__(self, path: Path, *, most: int = _MOST_MAPPED) -> None:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            if version != (1, 0):
                raise ValueError(f"{path.name} is of version {version}; expected (1, 0)")
            self.shape, fortran, kind = np.lib.format.read_array_header_1_0(file)
            if len(self.shape) != 2 or fortran or kind != np.float16:
                raise ValueError(f"{path.name} is no matrix of float16: {self.shape}, {kind}")
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            count = self.shape[0] * self.shape[1]
            self.array_BD: npt.NDArray[np.float16] = np.frombuffer(
                self._map, dtype=np.float16, count=count, offset=file.tell()
            ).reshape(self.shape)
        self._bounded = len(self._map) > most and hasattr(mmap, "MADV_DONTNEED")
        self._most = most
        self._mapped = 0

    def __len__(self) -> int:
        return int(self.shape[0])

    def take(self, at: IdArray) -> VectorArray:
        """Rows at positions, float32, shape (n, D)."""
        if not self._bounded:
            return self.array_BD[at].astype(np.float32)
        found = np.empty((len(at), self.shape[1]), dtype=np.float32)
        step = max(1, self._most // _AROUND - 1)
        for first in range(0, len(at), step):
            some = at[first : first + step]
            span = (int(some.max()) - int(some.min()) + 1) * self.shape[1] * 2
            touched = min(span + _AROUND, len(some) * _AROUND)
            if self._mapped + touched > self._most:
                self._map.madvise(mmap.MADV_DONTNEED)
                self._mapped = 0
            found[first : first + step] = self.array_BD[some]
            self._mapped += touched
        return found


@dataclass(frozen=True, slots=True)
class Base:
    """A published build, opened. Its vectors have shape (B, D)."""

    kind: DenseKind
    rows: IdArray
    vectors_BD: MappedVectors
    index: Any
    phi: float
    on_gpu: Any = None

    def exact(self, at: IdArray, query_D: VectorArray) -> ScoreArray:
        """Inner products of the vectors at the given positions with the query."""
        return self.vectors_BD.take(at) @ query_D


@dataclass(frozen=True, slots=True)
class FaissView:
    """The dense index at one moment. `alive` masks are empty where nothing was removed."""

    base: Base | None
    base_alive: _Mask
    rows: IdArray
    vectors_ND: VectorArray
    alive: _Mask
    settings: DenseSettings
    dimension: int

    @property
    def vectors(self) -> int:
        """How many vectors there are to search, removed ones left out."""
        base = len(self.base.rows) if self.base else 0
        return base + len(self.rows) - int((~self.base_alive).sum()) - int((~self.alive).sum())

    def _check(self, query: VectorArray) -> VectorArray:
        if query.shape != (self.dimension,):
            raise InvalidInputError(
                "the query vector has the wrong dimension",
                received=query.shape,
                expected=f"({self.dimension},)",
            )
        return np.ascontiguousarray(query, dtype=np.float32)

    def search(self, query: VectorArray, k: int, allowed: Selection | None) -> Scored:
        query_D = self._check(query)
        if allowed is None:
            return self._search(query_D, k, None)
        rows = allowed.few(self.settings.exact_below)
        if rows is not None:
            return self._search(query_D, k, rows)
        # Most pass, and nobody holds their rows: take more than k and ask about those.
        fetch = k * _FIRST_OVERFETCH
        while True:
            found = self._search(query_D, fetch, None)
            keep = allowed.contains(found.rows)
            if int(keep.sum()) >= k or len(found) >= self.vectors:
                return Scored(found.rows[keep][:k], found.scores[keep][:k])
            if len(found) < fetch or fetch > _MOST_OVERFETCH * k:
                return self._search(query_D, k, allowed.rows())
            fetch *= 4

    def _search(self, query_D: VectorArray, k: int, allowed: IdArray | None) -> Scored:
        found = []
        if self.base is not None and len(self.base.rows):
            found.append(self._search_base(self.base, query_D, k, allowed))
        if len(self.rows):
            scores = self.vectors_ND @ query_D
            usable = _usable(self.rows, self.alive, allowed)
            rows = self.rows
            if len(usable):
                rows, scores = rows[usable], scores[usable]
            found.append(top(rows, scores, k))
        if not found:
            return EMPTY
        return top(np.concatenate([f.rows for f in found]), np.concatenate([f.scores for f in found]), k)

    def _search_base(self, base: Base, query_D: VectorArray, k: int, allowed: IdArray | None) -> Scored:
        usable = _usable(base.rows, self.base_alive, allowed)
        survivors = int(usable.sum()) if len(usable) else len(base.rows)
        if not survivors:
            return EMPTY
        if len(usable) and survivors <= max(self.settings.exact_below, k):
            at = np.flatnonzero(usable)
            return top(base.rows[at], base.exact(at, query_D), k)
        fetch = k
        if base.kind != "flat":
            fetch = k * self.settings.rescore * (_PQ_EXTRA_RESCORE if base.kind == "ivf,pq" else 1)
        at = self._positions(base, query_D, min(fetch, survivors), usable)
        return top(base.rows[at], base.exact(at, query_D), k)

    def _positions(self, base: Base, query_D: VectorArray, fetch: int, usable: _Mask) -> IdArray:
        """Positions of the best vectors in the base's own, perhaps approximate, order."""
        import faiss

        options: dict[str, Any] = {}
        if len(usable):
            bits = np.packbits(usable, bitorder="little")
            options["sel"] = faiss.IDSelectorBitmap(bits)
        query = query_D[None]
        if base.phi:
            query = np.hstack([query, np.zeros((1, 1), dtype=np.float32)])
        if base.on_gpu is not None and not len(usable):
            with _GPU:  # one search at a time: its scratch memory is shared
                _, at = base.on_gpu.search(query, min(fetch, 2048))
        elif base.kind == "hnsw":
            beam = max(self.settings.hnsw_ef_search, fetch)
            _, at = base.index.search(query, fetch, params=faiss.SearchParametersHNSW(efSearch=beam, **options))
        elif base.kind == "flat":
            _, at = base.index.search(query, fetch, params=faiss.SearchParameters(**options) if options else None)
        else:
            lists = visited_lists(base.index.nlist, self.settings)
            make = faiss.SearchParametersIVF if base.kind == "ivf,sq8" else faiss.IVFPQSearchParameters
            _, at = base.index.search(query, fetch, params=make(nprobe=lists, **options))
        positions: IdArray = at[0].astype(np.int64)
        return positions[positions >= 0]

    def score(self, query: VectorArray, rows: IdArray) -> ScoreArray:
        query_D = self._check(query)
        scores = np.full(len(rows), np.nan, dtype=np.float32)
        if self.base is not None:
            place, at = _find(self.base.rows, rows, self.base_alive)
            scores[place] = self.base.exact(at, query_D)
        place, at = _find(self.rows, rows, self.alive)
        if len(at):
            scores[place] = self.vectors_ND[at] @ query_D
        return scores

    def rank(self, query: VectorArray, row: int) -> int | None:
        """The row's exact rank among all vectors, from 1; None where it has no vector yet."""
        query_D = self._check(query)
        score = float(self.score(query, np.array([row]))[0])
        if np.isnan(score):
            return None
        better = 0
        if self.base is not None:
            usable = self.base_alive if len(self.base_alive) else np.ones(len(self.base.rows), dtype=np.bool_)
            for start in range(0, len(self.base.rows), 65_536):
                at = np.arange(start, min(start + 65_536, len(self.base.rows)))
                scores = self.base.exact(at, query_D)
                ahead = (scores > score) | ((scores == score) & (self.base.rows[at] < row))
                better += int((ahead & usable[at]).sum())
        if len(self.rows):
            scores = self.vectors_ND @ query_D
            ahead = (scores > score) | ((scores == score) & (self.rows < row))
            better += int((ahead & self.alive).sum() if len(self.alive) else ahead.sum())
        return better + 1


def _usable(rows: IdArray, alive: _Mask, allowed: IdArray | None) -> _Mask:
    """Which of the ascending rows may be returned; empty where all may."""
    if allowed is None:
        return alive
    place, at = _find(rows, allowed, alive)
    del place
    mask = np.zeros(len(rows), dtype=np.bool_)
    mask[at] = True
    return mask


def _find(rows: IdArray, wanted: IdArray, alive: _Mask) -> tuple[IdArray, IdArray]:
    """Where the wanted rows stand: (their places in `wanted`, their positions in the ascending `rows`)."""
    at = np.searchsorted(rows, wanted)
    hit = at < len(rows)
    hit[hit] &= rows[at[hit]] == wanted[hit]
    if len(alive):
        hit[hit] &= alive[at[hit]]
    return np.flatnonzero(hit), at[hit]


class FaissIndex:
    """The dense index in `folder`, derived from the store's vectors."""

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
        self._base_alive: _Mask = _ALL
        self._buffer = np.zeros((0, self._dimension), dtype=np.float32)
        self._rows: IdArray = np.zeros(0, dtype=np.int64)
        self._alive: _Mask = _ALL
        self._applied = -1

    def catch_up(self, reader: StoreReader) -> FaissView:
        """A view at exactly the reader's change."""
        with self._lock:
            if self._applied < 0:
                self._load()
            if self._applied > reader.change:
                raise AheadError
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

    def _load(self) -> None:
        self._reset()
        self._applied = 0
        self._bases.open_newest(self._open)

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
        on_gpu = _on_gpu(index, vectors.array_BD, manifest["kind"], self._settings) if self._settings.gpu else None
        self._base = Base(manifest["kind"], rows, vectors, index, float(manifest["phi"]), on_gpu)
        self._applied = change

    def _apply(self, reader: StoreReader) -> None:
        removed = reader.removed_since(self._applied) if self._applied else np.zeros(0, dtype=np.int64)
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
        self._applied = reader.change
        base_rows = len(self._base.rows) if self._base else 0
        dead = int((~self._base_alive).sum())
        if max(len(self._rows), dead) > max(_REBASE_ROWS, _REBASE_SHARE * base_rows):
            self.rebuild(reader)

    def _append(self, rows: IdArray, vectors_ND: VectorArray) -> None:
        """Into the buffer, rows ascending. Views of the past keep their own slice or copy."""
        old = len(self._rows)
        if old and rows[0] < self._rows[-1]:
            # The encoder finished out of order: put the buffer in order once.
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
            _, at = _find(self._base.rows, removed, _ALL)
            if len(at):
                self._base_alive = _full(self._base_alive, len(self._base.rows)).copy()
                self._base_alive[at] = False
        _, at = _find(self._rows, removed, _ALL)
        if len(at):
            self._alive = _full(self._alive, len(self._rows)).copy()
            self._alive[at] = False

    def rebuild(self, reader: StoreReader, kind: str | None = None) -> None:
        """Derive the index again from the stored vectors and publish it."""
        import faiss

        with self._lock:
            parts = [(some, block.astype(np.float16)) for some, block in reader.vectors_since(-1)]
            rows = np.concatenate([r for r, _ in parts]) if parts else np.zeros(0, dtype=np.int64)
            vectors = np.zeros((len(rows), self._dimension), dtype=np.float16)
            at = len(rows)
            while parts:  # each part is freed when it has its place
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
                reader.change, write, self._open, kind=chosen, phi=phi, rows=len(rows), dimension=self._dimension
            )

    def check(self, reader: StoreReader) -> list[str]:
        """What differs from the store: files, rows, and the vectors themselves (a sample of 1,000)."""
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
        """The type of the base that is open, `buffer` where there is none yet."""
        return self._base.kind if self._base else "buffer"


def _full(mask: _Mask, length: int) -> _Mask:
    return mask if len(mask) else np.ones(length, dtype=np.bool_)


def _on_gpu(index: Any, vectors_BD: npt.NDArray[np.float16], kind: str, settings: DenseSettings) -> Any:
    """The index on the first GPU, or None where faiss sees no GPU or the type has no GPU form."""
    import faiss

    if not hasattr(faiss, "StandardGpuResources") or not faiss.get_num_gpus() or kind == "hnsw":
        return None
    try:
        resources = faiss.StandardGpuResources()
        if kind == "flat":
            config = faiss.GpuIndexFlatConfig()
            config.useFloat16 = True
            flat = faiss.GpuIndexFlatIP(resources, vectors_BD.shape[1], config)
            for block in _blocks(vectors_BD):
                flat.add(block.astype(np.float32))
            return flat
        copied = faiss.index_cpu_to_gpu(resources, 0, index)
        copied.nprobe = visited_lists(index.nlist, settings)
        return copied
    except RuntimeError as error:
        log.warning("the dense index stays on the CPU: %s", error)
        return None
