"""Every FAISS type against exact search on real-shaped vectors: recall, exact scores, filters, deletes, updates."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hyblink.app.core.errors import InvalidInputError
from hyblink.app.core.selection import RowSelection
from hyblink.app.core.settings import DenseSettings
from hyblink.app.core.types.arrays import IdArray, VectorArray
from hyblink.app.engines.dense.index import FaissIndex
from hyblink.app.engines.dense.kinds import KINDS, choose_kind, visited_lists
from hyblink.app.engines.dense.mapped import MappedVectors
from hyblink.app.engines.derived import top

D = 32
N = 6000


class Vectors:
    """As much of a store's reader as a dense index needs, over plain arrays."""

    def __init__(
        self, rows: IdArray, vectors: VectorArray, changes: IdArray, removed: dict[int, int], change: int
    ) -> None:
        self.rows, self.values, self.changes, self.removed, self.change = rows, vectors, changes, removed, change

    moment = ""

    def continues(self, _change: int, _moment: str) -> bool:
        return True

    def vectors_since(self, change: int) -> Iterator[tuple[IdArray, VectorArray]]:
        keep = (self.changes > change) & ~np.isin(self.rows, list(self.removed))
        if keep.any():
            yield self.rows[keep], self.values[keep]

    def removed_since(self, change: int) -> IdArray:
        return np.sort(np.array([row for row, at in self.removed.items() if at > change], dtype=np.int64))

    def live_rows(self, *, encoded: bool = False) -> IdArray:
        return self.rows[~np.isin(self.rows, list(self.removed))]

    def vectors(self, rows: IdArray) -> tuple[IdArray, VectorArray]:
        return rows, self.values[np.searchsorted(self.rows, rows)]


def clustered(count: int, seed: int, *, normalised: bool = True) -> VectorArray:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((60, D))
    vectors = centres[rng.integers(0, 60, count)] + 0.6 * rng.standard_normal((count, D))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    if not normalised:
        vectors *= rng.uniform(0.3, 2.0, (count, 1))
    return vectors.astype(np.float16).astype(np.float32)


def store(count: int = N, *, normalised: bool = True) -> Vectors:
    rows = np.arange(count, dtype=np.int64) * 3 + 5
    return Vectors(rows, clustered(count, 1, normalised=normalised), np.ones(count, dtype=np.int64), {}, 1)


class Many(RowSelection):
    """A selection whose rows are far away: the index has to ask about its own candidates."""

    def rows_if_at_most(self, limit: int) -> IdArray | None:
        return self.all_rows if len(self.all_rows) <= limit else None


def recall(
    view,
    reader: Vectors,
    allowed: IdArray | None = None,
    k: int = 100,
    normalised: bool = True,
    make: Any = RowSelection,
) -> float:  # type: ignore[no-untyped-def]
    live = reader.live_rows()
    if allowed is not None:
        live = np.intersect1d(live, allowed)
    vectors = reader.vectors(live)[1]
    shares = []
    for query in clustered(25, 7, normalised=normalised):
        got = view.search(query, k, None if allowed is None else make(allowed))
        expected = top(live, vectors @ query, k)
        shares.append(len(np.intersect1d(got.rows, expected.rows)) / len(expected.rows))
        exact = reader.vectors(np.sort(got.rows))[1] @ query
        assert np.allclose(got.scores, exact[np.argsort(np.argsort(got.rows))], atol=1e-4), (
            "scores are exact inner products"
        )
        assert np.isin(got.rows, live).all()
    return float(np.mean(shares))


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_recall_at_the_shipped_settings(tmp_path: Path, kind: str, normalised: bool) -> None:
    reader = store(normalised=normalised)
    index = FaissIndex(tmp_path / "dense", "e", D, kind, DenseSettings())
    index.rebuild(reader)
    assert index.kind == kind
    assert recall(index.catch_up(reader), reader, normalised=normalised) >= 0.98
    assert index.check(reader) == []


@pytest.mark.parametrize("kind", KINDS)
def test_every_vector_is_found_by_itself(tmp_path: Path, kind: str) -> None:
    """None is out of reach: not at the end of a part, not in a list that nobody visits, not behind a missing link."""
    reader = store()
    index = FaissIndex(tmp_path / "dense", "e", D, kind, DenseSettings())
    index.rebuild(reader)
    later = Vectors(
        np.concatenate([reader.rows, reader.rows[-1] + 1 + np.arange(50)]),
        np.concatenate([reader.values, clustered(50, 5)]),
        np.concatenate([reader.changes, np.full(50, 2, dtype=np.int64)]),
        {},
        2,
    )
    view = index.catch_up(later)
    lost = [
        int(row)
        for row, vector in zip(later.rows, later.values, strict=True)
        if row not in view.search(vector, 2, None).rows  # two may be equal in half precision
    ]
    assert lost == []


@pytest.mark.parametrize("kind", KINDS)
def test_filters_deletes_and_updates(tmp_path: Path, kind: str) -> None:
    reader = store()
    settings = DenseSettings(exact_below=200)
    index = FaissIndex(tmp_path / "dense", "e", D, kind, settings)
    index.rebuild(reader)
    few, many = reader.rows[::97], reader.rows[::2]
    view = index.catch_up(reader)
    assert recall(view, reader, few, k=10) == 1.0, "a narrow filter is searched exactly"
    assert recall(view, reader, many) >= 0.98
    for selected in (few, many, reader.rows[::500]):
        assert recall(view, reader, selected, make=Many) >= 0.98, "rows far away: candidates are asked about"
    assert len(view.search(reader.values[0], 10, RowSelection(np.zeros(0, dtype=np.int64)))) == 0
    later = Vectors(
        np.concatenate([reader.rows, reader.rows[-1] + 1 + np.arange(500)]),
        np.concatenate([reader.values, clustered(500, 3)]),
        np.concatenate([reader.changes, np.full(500, 2, dtype=np.int64)]),
        {int(row): 2 for row in reader.rows[:1000]},
        2,
    )
    after = index.catch_up(later)
    assert recall(after, later) >= 0.98
    assert index.check(later) == []
    assert recall(view, reader) >= 0.98, "a view of the past stays as it was"
    fresh = FaissIndex(tmp_path / "dense", "e", D, kind, settings)
    assert recall(fresh.catch_up(later), later) >= 0.98
    assert fresh.check(later) == []
    gone, alive = later.rows[:5], later.rows[2000:2005]
    scores = after.score(later.values[0], np.concatenate([gone, alive]))
    assert np.isnan(scores[:5]).all()
    assert np.allclose(scores[5:], later.vectors(alive)[1] @ later.values[0], atol=1e-4)
    best = after.search(later.values[3000], 5, None)
    assert [after.rank(later.values[3000], int(row)) for row in best.rows] == [1, 2, 3, 4, 5]


def test_vectors_that_arrive_out_of_order(tmp_path: Path) -> None:
    rows = np.arange(100, dtype=np.int64)
    values, changes = clustered(100, 1), np.where(np.arange(100) % 2, 1, 2).astype(np.int64)
    index = FaissIndex(tmp_path / "dense", "e", D, "flat", DenseSettings())
    index.catch_up(Vectors(rows[1::2], values[1::2], changes[1::2], {}, 1))
    reader = Vectors(rows, values, changes, {}, 2)
    assert recall(index.catch_up(reader), reader, k=20) == 1.0


def test_type_is_chosen_by_size() -> None:
    settings = DenseSettings()
    assert [choose_kind("auto", n, settings) for n in (10, 50_000, 50_001, 5_000_001)] == [
        "flat",
        "flat",
        "ivf,sq8",
        "ivf,pq",
    ]
    assert choose_kind("ivf,pq", 10, settings) == "flat"
    with pytest.raises(InvalidInputError, match="unknown dense index; received 'annoy'"):
        choose_kind("annoy", 10, settings)


def test_a_query_of_the_wrong_dimension_is_refused(tmp_path: Path) -> None:
    reader = store(200)
    view = FaissIndex(tmp_path / "dense", "e", D, "flat", DenseSettings()).catch_up(reader)
    with pytest.raises(InvalidInputError, match=r"wrong dimension; received '?\(31,\)'?; expected \(32,\)"):
        view.search(np.zeros(31, dtype=np.float32), 5, None)


def test_of_a_large_matrix_little_stays_mapped(tmp_path: Path) -> None:
    matrix = np.random.default_rng(0).standard_normal((60_000, 384)).astype(np.float16)  # 46 MB
    np.save(tmp_path / "vectors.npy", matrix)
    mapped = MappedVectors(tmp_path / "vectors.npy", most=4 * 2**20)

    def resident() -> int:
        parts = Path("/proc/self/smaps").read_text().split("vectors.npy")[1:]
        return sum(int(part.split("Rss:")[1].split()[0]) for part in parts) * 1024

    rng = np.random.default_rng(1)
    most = 0
    for _ in range(200):
        at = rng.integers(0, len(matrix), 40)
        assert np.array_equal(mapped.take(at), matrix[at].astype(np.float32))
        most = max(most, resident())
    assert 0 < most <= 4 * 2**20
    free = MappedVectors(tmp_path / "vectors.npy")  # small enough to stay
    free.take(np.arange(len(matrix)))
    assert resident() > 40 * 2**20
    np.save(tmp_path / "other.npy", matrix[0])
    with pytest.raises(ValueError, match="no matrix of float16"):
        MappedVectors(tmp_path / "other.npy")
    cut = tmp_path / "cut.npy"
    cut.write_bytes((tmp_path / "vectors.npy").read_bytes()[:1_000_000])
    with pytest.raises(ValueError, match="buffer is smaller"):
        MappedVectors(cut)


@pytest.mark.parametrize(("lists", "wanted", "visited"), [(64, 0, 64), (512, 0, 96), (8192, 0, 1024), (1024, 7, 7)])
def test_how_many_lists_are_visited(lists: int, wanted: int, visited: int) -> None:
    assert visited_lists(lists, DenseSettings(ivf_nprobe=wanted)) == visited
