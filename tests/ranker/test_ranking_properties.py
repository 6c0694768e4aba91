"""What must hold for any scores: fusion is blind to order, top-k is a prefix, ledgers add up."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hyblink.app.core.types.ranking import DEFAULT_SIGNALS, RankingProfile
from hyblink.app.engines.derived import top
from hyblink.indexer.ingest.chunking import windows
from hyblink.ranker.collapse import collapse
from hyblink.ranker.complete import CompleteScores, fuse
from hyblink.ranker.fusion import FUSIONS
from hyblink.ranker.normalization import NORMALIZATIONS
from hyblink.ranker.tuning import grid, judged_pool, ndcg, tune

raw_scores = st.lists(
    st.tuples(st.floats(0, 40), st.floats(0, 30), st.one_of(st.floats(-1, 1), st.just(float("nan")))),
    min_size=1,
    max_size=25,
)
profiles = st.builds(
    lambda fusion, normalization, weights: RankingProfile(
        "t", 0, fusion, normalization, dict(zip(DEFAULT_SIGNALS, weights, strict=True))
    ),
    st.sampled_from(sorted(FUSIONS)),
    st.sampled_from(sorted(NORMALIZATIONS)),
    st.tuples(*[st.floats(0, 1)] * 3).filter(any),
)


def complete_scores(rows: list[tuple[float, float, float]]) -> CompleteScores:
    return CompleteScores(
        DEFAULT_SIGNALS, np.arange(len(rows)), np.array(rows, dtype=np.float64).T.copy(), ({}, {}, {})
    )


@given(raw_scores, profiles, st.randoms())
def test_fusion_does_not_depend_on_the_order_of_candidates(rows, profile, random) -> None:  # type: ignore[no-untyped-def]
    order = list(range(len(rows)))
    random.shuffle(order)
    straight = fuse(complete_scores(rows), profile).scores_C
    shuffled = fuse(complete_scores([rows[at] for at in order]), profile).scores_C
    assert np.allclose(straight[order], shuffled, rtol=1e-9, atol=1e-9)


@given(raw_scores, profiles)
def test_the_ledger_sums_to_the_score(rows, profile) -> None:  # type: ignore[no-untyped-def]
    fused = fuse(complete_scores(rows), profile)
    assert np.isfinite(fused.scores_C).all()
    assert np.abs(fused.contributions_SC.sum(axis=0) - fused.scores_C).max() < 1e-6


@given(raw_scores, profiles, st.lists(st.sampled_from("abcdef?"), min_size=25, max_size=25))
def test_a_document_stands_where_its_best_passage_does(rows, profile, owners) -> None:  # type: ignore[no-untyped-def]
    fused = fuse(complete_scores(rows), profile)
    owners = owners[: len(rows)]
    names = "fecabd"  # keys and ids are ordered differently, and ties go by ids
    keys = np.array([names.find(owner) for owner in owners])
    documents = collapse(fused, keys, lambda some: [names[key] for key in some])
    best = {doc: max(fused.scores_C[at] for at in range(len(rows)) if owners[at] == doc) for doc in set(owners) - {"?"}}
    found = [names[key] for key in documents.keys_D]
    assert found == sorted(best, key=lambda doc: (-best[doc], doc))
    assert documents.scores_D.tolist() == [best[doc] for doc in found]
    for at, doc in enumerate(found):
        own = [column for column, owner in enumerate(owners) if owner == doc]
        assert documents.columns(at) == sorted(own, key=lambda column: (-fused.scores_C[column], column))


@given(st.lists(st.integers(-5, 5), max_size=60), st.integers(1, 70))
def test_top_k_is_a_prefix_of_top_k_plus_one(scores: list[int], k: int) -> None:
    rows, values = np.arange(len(scores)), np.array(scores, dtype=np.float32)
    shorter, longer = top(rows, values, k), top(rows, values, k + 1)
    assert shorter.rows.tolist() == longer.rows[: len(shorter)].tolist()
    expected = sorted(range(len(scores)), key=lambda at: (-scores[at], at))[:k]
    assert shorter.rows.tolist() == expected


@settings(max_examples=300)
@given(st.text(alphabet="ab .\n。é機\u0301", max_size=400), st.integers(1, 60), st.integers(0, 30))
def test_windows_cover_every_code_point(text: str, size: int, overlap: int) -> None:
    spans = windows(text, size, min(overlap, size // 2))
    covered = set()
    for start, end in spans:
        assert end - start <= size
        covered |= set(range(start, end))
    assert covered == set(range(len(text)))
    assert [s for s, _ in spans] == sorted({s for s, _ in spans})


def test_tuning_measures_what_fusion_ranks() -> None:
    rng = np.random.default_rng(3)
    pools = []
    for _ in range(12):
        count = int(rng.integers(1, 60))
        raw = np.stack([rng.gamma(2, 4, count), rng.gamma(1, 3, count), rng.uniform(-0.2, 0.9, count)])
        raw[2, rng.random(count) < 0.2] = np.nan
        documents = [f"d{n}" for n in rng.integers(0, 30, count)]
        grades = {f"d{n}": int(g) for n, g in enumerate(rng.integers(0, 3, 30))}
        scores = CompleteScores(DEFAULT_SIGNALS, np.arange(count), raw, ({}, {}, {}))
        pools.append(judged_pool(scores, documents, grades))
    tuned = tune(pools, DEFAULT_SIGNALS, folds=3)
    means = [
        np.mean([ndcg(pool, fuse(pool.scores, profile).scores_C) for pool in pools])
        for profile in grid(DEFAULT_SIGNALS)
    ]
    assert abs(tuned.in_sample - max(means)) < 1e-9
    under_chosen = np.mean([ndcg(pool, fuse(pool.scores, tuned.profile).scores_C) for pool in pools])
    assert abs(tuned.in_sample - under_chosen) < 1e-9
