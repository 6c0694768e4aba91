"""The types of FAISS index: choosing one by size, and building it."""

from __future__ import annotations

import logging
import math
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from hyblink.app.core.errors import InvalidInputError
from hyblink.app.core.settings import DenseSettings

log = logging.getLogger(__name__)

DenseKind = Literal["flat", "hnsw", "ivf,sq8", "ivf,pq"]

KINDS: tuple[DenseKind, ...] = ("flat", "hnsw", "ivf,sq8", "ivf,pq")

_TRAIN_PER_LIST = 64


def choose_kind(wanted: str, rows: int, settings: DenseSettings) -> DenseKind:
    """The index type for `rows` vectors. `auto` takes exact search, then IVF with 8-bit codes, then product codes.

    IVF types with fewer than 1,000 vectors become `flat`. Raises InvalidInputError for an unknown type.
    """
    if wanted == "auto":
        if rows <= settings.flat_below:
            return "flat"
        return "ivf,sq8" if rows <= settings.pq_above else "ivf,pq"
    for kind in KINDS:
        if wanted == kind:
            # Clustering needs more vectors than lists. Below that, exact search is both better and faster.
            return "flat" if kind.startswith("ivf") and rows < 1000 else kind
    raise InvalidInputError(
        "unknown dense index", received=wanted, expected=f"auto, knn (on OpenSearch) or one of {', '.join(KINDS)}"
    )


def _lists(rows: int) -> int:
    return max(16, min(65536, 1 << round(math.log2(2.4 * max(rows, 1) ** 0.5))))


def visited_lists(lists: int, settings: DenseSettings) -> int:
    """The number of inverted lists that a search visits (nprobe): as set, else an eighth of them and at least 96.

    An eighth gives a recall@64 of .98 even for queries unlike any passage.
    """
    return min(lists, settings.ivf_nprobe or max(96, lists // 8))


def _pq_parts(dimension: int) -> int:
    return max(m for m in range(1, dimension // 4 + 1) if dimension % m == 0)


def build(kind: DenseKind, vectors_BD: npt.NDArray[np.float16], settings: DenseSettings) -> tuple[Any, float]:
    """(FAISS index over the vectors, phi). phi is the largest squared norm for HNSW over unequal norms, otherwise 0.

    HNSW needs a metric. If norms differ, each vector x gets one more coordinate sqrt(phi - |x|²) and is searched by
    L2 distance, which then orders like the inner product (Bachrach et al. 2014). With equal norms this is not needed.
    """
    import faiss

    rows, dimension = vectors_BD.shape
    metric = faiss.METRIC_INNER_PRODUCT
    phi = 0.0
    if kind == "flat":
        index: Any = faiss.IndexScalarQuantizer(dimension, faiss.ScalarQuantizer.QT_fp16, metric)
    elif kind == "hnsw":
        norms = np.concatenate([(block.astype(np.float32) ** 2).sum(1) for block in blocks(vectors_BD)] or [[1.0]])
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
    for block in blocks(vectors_BD):
        chunk = block.astype(np.float32)
        if phi:
            rest = np.sqrt(np.maximum(phi - (chunk**2).sum(1, keepdims=True), 0.0))
            chunk = np.hstack([chunk, rest]).astype(np.float32)
        index.add(chunk)
    return index, phi


def blocks(vectors: npt.NDArray[np.float16], size: int = 65_536) -> list[npt.NDArray[np.float16]]:
    """The matrix as consecutive views of at most `size` rows, to limit memory when they are converted to float32."""
    return [vectors[at : at + size] for at in range(0, len(vectors), size)]


def on_first_gpu(index: Any, vectors_BD: npt.NDArray[np.float16], kind: str, settings: DenseSettings) -> Any:
    """A copy of the index on the first GPU. None if faiss sees no GPU, the copy fails, or the type is HNSW."""
    import faiss

    if not hasattr(faiss, "StandardGpuResources") or not faiss.get_num_gpus() or kind == "hnsw":
        return None
    try:
        resources = faiss.StandardGpuResources()
        if kind == "flat":
            config = faiss.GpuIndexFlatConfig()
            config.useFloat16 = True
            flat = faiss.GpuIndexFlatIP(resources, vectors_BD.shape[1], config)
            for block in blocks(vectors_BD):
                flat.add(block.astype(np.float32))
            return flat
        copied = faiss.index_cpu_to_gpu(resources, 0, index)
        copied.nprobe = visited_lists(index.nlist, settings)
        return copied
    except RuntimeError as error:
        log.warning("the dense index stays on the CPU: %s", error)
        return None
