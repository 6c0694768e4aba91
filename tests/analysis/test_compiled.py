"""Loops run in the interpreter until there is enough to do; what they compute is the same to the bit."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from hyblink.app.analysis import compiled
from hyblink.app.core.types.arrays import TermBatch, TermWeights
from hyblink.app.engines.embedded.sparse.segment import Segment, build_segment, merge_segments
from hyblink.app.engines.embedded.sparse.view import SparseView

_ALL = np.zeros(0, dtype=np.bool_)


def _batch(rng: np.random.Generator, first: int, passages: int, *, weighted: bool) -> TermBatch:
    lengths = rng.integers(1, 12, passages)
    ids = [np.sort(rng.choice(60, size, replace=False)) for size in lengths]
    weights = rng.gamma(2.0, 1.0, int(lengths.sum())) if weighted else np.ones(int(lengths.sum()))
    rows = np.arange(first, first + passages, dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return TermBatch(rows, offsets, np.concatenate(ids).astype(np.int32), weights.astype(np.float32))


def _everything(seed: int) -> list[object]:
    """Segments of random passages, merged, searched, scored and explained."""
    rng = np.random.default_rng(seed)
    left = build_segment(_batch(rng, 0, 40, weighted=True))
    right = build_segment(_batch(rng, 40, 25, weighted=bool(seed % 2)))
    alive = rng.random(40) > 0.2
    merged = merge_segments((left, alive), (right, _ALL))
    query = TermWeights(
        np.sort(rng.choice(60, 9, replace=False)).astype(np.int32), rng.gamma(2.0, 1.0, 9).astype(np.float32)
    )
    rows = rng.permutation(merged.rows)[:20]
    found: list[object] = [getattr(merged, name).tobytes() for name in Segment.__slots__]
    for view in (SparseView(((merged, _ALL),)), SparseView(((left, alive), (right, _ALL)))):
        best = view.search(query, 10, None)
        found += [best.rows.tobytes(), best.scores.tobytes(), view.score(query, rows).tobytes()]
        found += [view.contributions(query, rows), [view.rank(query, int(row)) for row in rows]]
    return found


@pytest.fixture
def left_to_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    def leave(steps: int) -> None:
        monkeypatch.setattr(compiled._interpreted, "left", steps)

    return leave


@pytest.mark.parametrize("seed", range(4))
def test_interpreted_and_compiled_loops_agree_to_the_bit(
    seed: int, left_to_the_interpreter: Callable[[int], None]
) -> None:
    left_to_the_interpreter(10**9)
    interpreted = _everything(seed)
    assert compiled._interpreted.left < 10**9, "the loops were counted"
    left_to_the_interpreter(0)
    assert _everything(seed) == interpreted


def test_a_process_with_much_to_do_compiles(left_to_the_interpreter: Callable[[int], None]) -> None:
    calls: list[str] = []

    @compiled.compiled(steps=lambda count: count)
    def loop(count: int) -> int:
        calls.append("interpreted")
        return count

    loop.__dict__["machine_code"] = lambda count: calls.append("machine code") or count
    left_to_the_interpreter(100)
    assert [loop(60), loop(30), loop(30), loop(1)] == [60, 30, 30, 1]
    assert calls == ["interpreted", "interpreted", "machine code", "machine code"]
