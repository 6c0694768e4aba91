"""VDR searches in every mode, and re-ranking, against arithmetic written out: on every engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from support.documents import random_documents
from support.encoders import FakeDense

from hyblink.app.application import App
from hyblink.app.core.errors import EncoderUnavailableError, InvalidInputError
from hyblink.app.core.ports.encoders import EncodedPassages, EncodedQuery
from hyblink.app.core.settings import SearchSettings
from hyblink.app.core.types.arrays import ScoreArray, TermWeights, TokenIdf
from hyblink.app.core.types.collections import CollectionSpec
from hyblink.app.core.types.documents import Tier
from hyblink.app.core.types.ranking import (
    DEFAULT_SIGNALS,
    RerankRequest,
    Signal,
    SignalValue,
    TokenContribution,
    VdrMode,
)
from hyblink.app.core.types.search import SearchRequest, SearchResult
from hyblink.app.core.weights import idf_weights, round_weights
from hyblink.app.operations.collections import ensure_collection
from hyblink.app.operations.encoding import encode_now

EXPANSION = 29_000
"""A token that the fake encoder adds to every text of which the number of tokens is even."""
PRIOR = 2.0


class FakeVdr:
    """Weighs a text's tokens by their ids, and adds one that the text does not contain."""

    id = "vdr:fake:1"
    mode: VdrMode = "full"

    def __init__(self, app: App) -> None:
        self._bag = app.encoders.default_bag

    def of(self, text: str, *, query: bool) -> dict[int, float]:
        tokens = self._bag.encode_query(text)
        found = {token: 0.5 + token % 7 + (0.25 if query else 0.0) for token in tokens}
        if len(tokens) % 2 == 0:
            found[EXPANSION] = 1.5
        return found

    def terms(self, text: str, *, query: bool) -> TermWeights:
        found = sorted(self.of(text, query=query).items())
        ids = np.array([token for token, _ in found], dtype=np.int32)
        return TermWeights(ids, round_weights([weight for _, weight in found]))

    def weights(self, texts: Sequence[Any], *, query: bool) -> list[TermWeights]:
        raise NotImplementedError

    def prior_idf(self, ids: npt.NDArray[np.int32]) -> ScoreArray | None:
        return np.full(len(ids), PRIOR, dtype=np.float32)


class FakeHybrid:
    """The fake dense encoder and the fake VDR encoder together."""

    def __init__(self, vdr: FakeVdr) -> None:
        self._dense, self._vdr = FakeDense(), vdr

    def load(self) -> None:
        """There is nothing to load."""

    def encode_query(self, text: str) -> EncodedQuery:
        return EncodedQuery(self._dense.encode_query(text), self._vdr.terms(text, query=True))

    def encode_passages(self, titles: Sequence[str], texts: Sequence[str]) -> EncodedPassages:
        weights = [self._vdr.terms(f"{a}\n{b}" if a else b, query=False) for a, b in zip(titles, texts, strict=True)]
        return EncodedPassages(self._dense.encode_passages(titles, texts), tuple(weights))

    def prior_idf(self, ids: npt.NDArray[np.int32]) -> ScoreArray | None:
        return self._vdr.prior_idf(ids)


class FakeCross:
    """Likes long passages; takes a moment for each."""

    id = "cross:fake"

    def __init__(self, pause_s: float = 0.0) -> None:
        self._pause_s = pause_s
        self.idf: TokenIdf | None = None

    def load(self) -> None:
        """Always ready."""

    def contributions(
        self, query: str, title: str, text: str, idf: TokenIdf | None = None
    ) -> tuple[TokenContribution, ...]:
        return ()

    def score(
        self, query: str, passages: Sequence[tuple[str, str]], deadline: float, idf: TokenIdf | None = None
    ) -> ScoreArray:
        self.idf = idf
        scores = np.full(len(passages), np.nan, dtype=np.float32)
        for at, (_, text) in enumerate(passages):
            time.sleep(self._pause_s)
            if time.perf_counter() > deadline:
                break
            scores[at] = len(text)
        return scores


def with_vdr(app: App) -> FakeVdr:
    vdr = FakeVdr(app)
    app.encoders.add_vdr(vdr, reads=FakeDense.id)
    ensure_collection(app, CollectionSpec("c"))
    app.encoders.put_hybrid_encoder(app.catalog.engine("c").record, FakeHybrid(vdr))
    return vdr


DOCUMENTS = random_documents(60, seed=11)


@pytest.fixture
def filled(make_app: Callable[..., App]) -> tuple[App, FakeVdr]:
    app = make_app("vdr")
    vdr = with_vdr(app)
    app.documents.bulk("c", DOCUMENTS, encode=False)
    encode_now(app, "c")
    return app, vdr


def contents() -> dict[str, str]:
    return {d["id"]: f"{d['title']}\n{d['text']}" if d["title"] else d["text"] for d in DOCUMENTS}


def expected(app: App, vdr: FakeVdr, query: str, mode: VdrMode) -> dict[str, float]:
    bag = app.encoders.default_bag
    bags = {doc: set(bag.encode_query(text)) for doc, text in contents().items()}
    weights = {doc: vdr.of(text, query=False) for doc, text in contents().items()}
    of_query = vdr.of(query, query=True) if mode in {"full", "beta"} else dict.fromkeys(bag.encode_query(query), 1.0)
    ids = np.array(sorted(of_query), dtype=np.int32)
    frequency = np.array([sum(token in own for own in bags.values()) for token in ids.tolist()])
    idf_terms = idf_weights(ids, frequency, len(bags), 1000)
    idf = dict(zip(idf_terms.ids.tolist(), idf_terms.weights.tolist(), strict=True))
    final: dict[int, float] = {}
    for token, weight in of_query.items():
        if token not in idf:
            continue  # the collection does not have it
        factor = {"beta": idf[token], "bag": idf[token]}.get(mode, min(idf[token] / PRIOR, 3.0))
        final[token] = float(round_weights([weight * factor])[0])
    passages = {doc: dict.fromkeys(own, 1.0) for doc, own in bags.items()} if mode in {"beta", "bag"} else weights
    scores = {
        doc: sum(weight * float(round_weights([own[token]])[0]) for token, weight in final.items() if token in own)
        for doc, own in passages.items()
    }
    return {doc: score for doc, score in scores.items() if score > 0}


@pytest.mark.parametrize("mode", ["full", "alpha", "beta", "bag"])
def test_every_mode_scores_as_written_out(filled: tuple[App, FakeVdr], mode: VdrMode) -> None:
    app, vdr = filled
    for query in ("alpha beta running", "naïve gamma", "omega"):
        request = SearchRequest(query, k=100, signals=(Signal.VDR,), vdr=mode, highlight=False)
        found = {hit.doc_id: hit.passages[0].signals[0].raw for hit in app.search.search("c", request).hits}
        wanted = expected(app, vdr, query, mode)
        assert found == pytest.approx(wanted, rel=1e-4), (mode, query)
        assert wanted or query == "omega"


def test_tokens_of_a_vdr_search_are_named_and_sum_to_the_signal(filled: tuple[App, FakeVdr]) -> None:
    app, _ = filled
    result = app.search.search("c", SearchRequest("alpha beta", signals=(Signal.VDR,), explain=True, vdr="full"))
    for hit in result.hits:
        line = hit.passages[0].signals[0]
        assert sum(token.contribution for token in line.tokens) == pytest.approx(line.raw, rel=1e-4)
        assert all(t.query_weight * t.passage_weight == pytest.approx(t.contribution) for t in line.tokens)
    assert result.profile.vdr == "full"


def test_auto_uses_bags_until_nearly_all_is_encoded(make_app: Callable[..., App]) -> None:
    app = make_app("auto")
    vdr = with_vdr(app)
    app.documents.bulk("c", DOCUMENTS, encode=False)
    request = SearchRequest("alpha beta", k=100, signals=(Signal.VDR,), highlight=False)

    def raw() -> dict[str, float | None]:
        return {hit.doc_id: hit.passages[0].signals[0].raw for hit in app.search.search("c", request).hits}

    assert raw() == pytest.approx(expected(app, vdr, "alpha beta", "bag"), rel=1e-4)
    encode_now(app, "c")
    assert raw() == pytest.approx(expected(app, vdr, "alpha beta", "full"), rel=1e-4)
    app.documents.bulk("c", [{"id": "late", "text": "alpha beta gamma delta"}], encode=False)
    hybrid = SearchRequest("alpha beta gamma delta", k=100, highlight=False)

    def late() -> dict[Signal, SignalValue]:
        result = app.search.search("c", hybrid)
        found = next(hit for hit in result.hits if hit.doc_id == "late")
        assert (result.waiting is None) == (found.passages[0].tier is Tier.FULL)
        return {line.signal: line for line in found.passages[0].signals}

    now = late()
    encoded = (Signal.VDR, Signal.DENSE)
    assert all("encoded for this search" in now[signal].note for signal in encoded)
    encode_now(app, "c")
    stored = late()
    for signal in encoded:  # on a cluster, a passage that gets its vectors counts twice in BM25 until it is merged
        assert now[signal].raw == pytest.approx(stored[signal].raw, rel=1e-5)
        assert stored[signal].note == ""
    assert app.catalog.engine("c").check() == []


def test_a_collection_without_any_vector_has_dense_scores_from_the_first_search_on(
    make_app: Callable[..., App],
) -> None:
    app = make_app("first")
    ensure_collection(app, CollectionSpec("c"))
    app.documents.bulk("c", DOCUMENTS, encode=False)
    request = SearchRequest("alpha beta", k=100, highlight=False)

    def dense(result: SearchResult) -> dict[str, float | None]:
        return {
            hit.doc_id: line.raw
            for hit in result.hits
            for line in hit.passages[0].signals
            if line.signal is Signal.DENSE
        }

    first = app.search.search("c", request)
    assert first.missing == ()
    assert first.waiting is not None
    assert first.waiting.encoded == len(first.hits)
    words = app.search.search(
        "c", SearchRequest("alpha beta", k=100, highlight=False, signals=(Signal.BM25, Signal.VDR))
    )
    assert words.waiting is None
    encode_now(app, "c")
    later = app.search.search("c", request)
    known = dense(later)
    for doc_id, raw in dense(first).items():
        assert raw == pytest.approx(known[doc_id], rel=1e-5)
    without = make_app("off", search=SearchSettings(encode_waiting=0))
    ensure_collection(without, CollectionSpec("c"))
    without.documents.bulk("c", DOCUMENTS, encode=False)
    assert without.search.search("c", request).missing == (Signal.DENSE,)


def test_what_the_time_does_not_reach_is_estimated_and_said(make_app: Callable[..., App]) -> None:
    app = make_app("none", search=SearchSettings(encode_waiting=0))
    with_vdr(app)
    app.documents.bulk("c", DOCUMENTS, encode=False)
    encode_now(app, "c")
    app.documents.bulk("c", [{"id": "late", "text": "alpha beta gamma delta"}], encode=False)
    result = app.search.search("c", SearchRequest("alpha beta gamma delta", k=100, highlight=False))
    assert result.waiting is not None
    assert (result.waiting.encoded, result.waiting.estimated) == (0, 1)
    found = next(hit for hit in result.hits if hit.doc_id == "late")
    for line in found.passages[0].signals[1:]:
        assert line.raw is None
        assert "estimated from the other signals" in line.note
        assert line.contribution == pytest.approx(line.weight * line.normalised)
    assert sum(line.contribution for line in found.passages[0].signals) == pytest.approx(found.score)


def test_a_mode_that_needs_an_encoder_is_refused_without_one(make_app: Callable[..., App]) -> None:
    app = make_app("plain")
    ensure_collection(app, CollectionSpec("c"))
    app.documents.bulk("c", DOCUMENTS[:5], encode=False)
    with pytest.raises(InvalidInputError, match="the generation has no VDR encoder; received 'vdr full'"):
        app.search.search("c", SearchRequest("alpha", vdr="full"))


def test_changed_and_deleted_documents_leave_no_weights(filled: tuple[App, FakeVdr]) -> None:
    app, _ = filled
    app.documents.delete("c", ["doc0", "doc1"])
    app.documents.bulk("c", [{**DOCUMENTS[2], "text": "omega psi chi"}], encode=False)
    encode_now(app, "c")
    request = SearchRequest("omega psi chi", k=100, signals=(Signal.VDR,), vdr="full", highlight=False)
    found = [hit.doc_id for hit in app.search.search("c", request).hits]
    assert "doc2" in found
    assert not {"doc0", "doc1"} & set(found)
    assert app.catalog.engine("c").check() == []


def test_reranked_documents_stand_first_and_the_ledger_adds_up(filled: tuple[App, FakeVdr]) -> None:
    app, _ = filled
    app.encoders.use_cross(FakeCross())
    plain = app.search.search(
        "c", SearchRequest("alpha beta", k=30, weights=dict.fromkeys((*DEFAULT_SIGNALS, Signal.CROSS), 1.0))
    )
    request = SearchRequest(
        "alpha beta", k=30, rerank=RerankRequest(10), weights=dict.fromkeys((*DEFAULT_SIGNALS, Signal.CROSS), 1.0)
    )
    result = app.search.search("c", request)
    assert {hit.doc_id for hit in result.hits[:10]} == {hit.doc_id for hit in plain.hits[:10]}
    assert [hit.doc_id for hit in result.hits[10:]] == [hit.doc_id for hit in plain.hits[10:]]
    lengths = np.array([len(hit.passages[0].text) for hit in plain.hits[:10]], dtype=float)
    fused = np.array([hit.score for hit in plain.hits[:10]])
    final = fused + (lengths - lengths.min()) / lengths.std()
    order = [plain.hits[at].doc_id for at in np.argsort(-final, kind="stable")]
    assert [hit.doc_id for hit in result.hits[:10]] == order
    scores = [hit.score for hit in result.hits]
    assert scores == sorted(scores, reverse=True)
    for hit in result.hits:
        for passage in hit.passages:
            assert sum(line.contribution for line in passage.signals) == pytest.approx(passage.score, abs=1e-6)
    assert result.hits[0].passages[0].signals[-1].signal is Signal.CROSS
    assert result.rerank is not None
    assert (result.rerank.asked, result.rerank.scored, result.rerank.skipped) == (10, 10, 0)
    # Pages are cut from the same order.
    second = app.search.search(
        "c",
        SearchRequest(
            "alpha beta",
            k=5,
            offset=5,
            rerank=RerankRequest(10),
            weights=dict.fromkeys((*DEFAULT_SIGNALS, Signal.CROSS), 1.0),
        ),
    )
    assert [hit.doc_id for hit in second.hits] == order[5:]


def test_what_the_budget_does_not_reach_keeps_its_order_and_is_reported(filled: tuple[App, FakeVdr]) -> None:
    app, _ = filled
    app.encoders.use_cross(FakeCross(pause_s=0.02))
    plain = app.search.search("c", SearchRequest("alpha beta", k=30))
    result = app.search.search("c", SearchRequest("alpha beta", k=30, rerank=RerankRequest(20, budget_ms=150)))
    assert result.rerank is not None
    assert 0 < result.rerank.scored < 20
    assert result.rerank.scored + result.rerank.skipped == 20
    rest = result.rerank.scored
    assert [hit.doc_id for hit in result.hits[rest:]] == [hit.doc_id for hit in plain.hits[rest:]]
    # Another page of the same search is cut from the same order, though its time might have reached further or less far.
    pages = [
        app.search.search("c", SearchRequest("alpha beta", k=10, offset=at, rerank=RerankRequest(20, budget_ms=150)))
        for at in (0, 10, 20)
    ]
    assert [hit.doc_id for page in pages for hit in page.hits] == [hit.doc_id for hit in result.hits]
    assert {page.rerank.scored for page in pages if page.rerank} == {result.rerank.scored}
    # More time is another question.
    more = app.search.search("c", SearchRequest("alpha beta", k=30, rerank=RerankRequest(20, budget_ms=9000)))
    assert more.rerank is not None
    assert more.rerank.scored == 20


def test_a_re_ranker_is_given_the_collections_idf_of_the_querys_tokens(filled: tuple[App, FakeVdr]) -> None:
    app, _ = filled
    cross = FakeCross()
    app.encoders.use_cross(cross)
    bag = app.encoders.default_bag
    query = "alpha naïve words that nobody wrote"
    bags = [set(bag.encode_query(text)) for text in contents().values()]
    ids = np.array(bag.encode_query(query), dtype=np.int32)
    frequency = np.array([sum(token in own for own in bags) for token in ids.tolist()])
    wanted = idf_weights(ids, frequency, len(bags), 1000)
    assert 0 < len(wanted) < len(ids)
    for signals in ((Signal.BM25,), (Signal.VDR, Signal.BM25)):
        app.search.search(
            "c", SearchRequest(query, signals=signals, rerank=RerankRequest(budget_ms=len(signals) * 1000))
        )
        assert cross.idf is not None
        assert cross.idf.vocabulary == bag.id
        assert cross.idf.terms.ids.tolist() == wanted.ids.tolist()
        assert cross.idf.terms.weights.tolist() == wanted.weights.tolist()
        cross.idf = None


def test_a_cross_encoder_that_fails_changes_nothing_and_says_why(filled: tuple[App, FakeVdr]) -> None:
    app, _ = filled

    class Broken:
        id = "cross:broken"

        def load(self) -> None:
            """It fails later."""

        def contributions(
            self, query: str, title: str, text: str, idf: TokenIdf | None = None
        ) -> tuple[TokenContribution, ...]:
            return ()

        def score(
            self, query: str, passages: Sequence[tuple[str, str]], deadline: float, idf: TokenIdf | None = None
        ) -> ScoreArray:
            raise EncoderUnavailableError("no weights")

    app.encoders.use_cross(Broken())
    plain = app.search.search("c", SearchRequest("alpha beta"))
    result = app.search.search("c", SearchRequest("alpha beta", rerank=RerankRequest()))
    assert [hit.doc_id for hit in result.hits] == [hit.doc_id for hit in plain.hits]
    assert result.rerank is not None
    assert "no weights" in result.rerank.error
    for bad, said in ((RerankRequest(0), "rerank.top"), (RerankRequest(5, 0.0), "rerank.budget_ms")):
        with pytest.raises(InvalidInputError, match=said):
            app.search.search("c", SearchRequest("alpha", rerank=bad))
    with pytest.raises(InvalidInputError, match="bad signals"):
        app.search.search("c", SearchRequest("alpha", signals=(Signal.CROSS,)))


def test_a_text_is_read_out_over_the_vocabulary_ids_and_weights_together(filled: tuple[App, FakeVdr]) -> None:
    app, vdr = filled
    text, passage = "alpha beta", "beta gamma running"
    found = app.search.vocabulary("c", text, passage)
    bag = app.encoders.default_bag
    weights = {bag.token(token): weight for token, weight in vdr.of(text, query=False).items()}
    assert {one.token: one.weight for one in found.as_passage} == pytest.approx(weights, rel=0.01)
    assert [one.weight for one in found.as_passage] == sorted((one.weight for one in found.as_passage), reverse=True)
    foreign = {one.token for one in found.as_passage if not one.own}
    assert foreign == ({bag.token(EXPANSION)} if len(bag.encode_query(text)) % 2 == 0 else set())
    of_passage = {bag.token(token): weight for token, weight in vdr.of(passage, query=False).items()}
    of_query = {one.token: one.weight for one in found.as_query}
    assert {one.token for one in found.shared} == of_query.keys() & of_passage.keys()
    for one in found.shared:
        assert one.contribution == pytest.approx(of_query[one.token] * of_passage[one.token], rel=0.01)
    assert found.score == pytest.approx(sum(one.contribution for one in found.shared))
    with pytest.raises(InvalidInputError, match="the passage is empty"):
        app.search.vocabulary("c", "alpha", " ")
