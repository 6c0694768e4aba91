"""Queries are encoded once, together if they come together, and give the same rankings alone, together and cached."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from hyblink.app.core.errors import EncoderUnavailableError
from hyblink.app.core.ports.encoders import EncodedPassages, EncodedQuery
from hyblink.app.core.settings import EncodeSettings
from hyblink.app.encoders.dense.transformer import DenseTransformer
from hyblink.app.encoders.shared_queries import SharedQueries
from hyblink.app.encoders.vdr.adapter import DEFAULT, VdrAdapter

PASSAGES = [
    "Swifts sleep on the wing and land only to breed.",
    "A SWIFT code names a bank in an international transfer.",
    "Feed the starter twice a day and keep it warm.",
    "The library opens at nine, and on Sundays at noon.",
    "Remove duplicates from a list while preserving its order.",
]
QUERIES = [
    "how do swifts sleep",
    "bank code",
    "sourdough",
    "opening hours of the library on Sunday",
    "unique items",
    "",
]


class Counted:
    """An encoder that counts its passes, and waits in each until it is let go."""

    def __init__(self) -> None:
        self.passes: list[list[str]] = []
        self.go = threading.Event()
        self.began = threading.Event()
        self.error: Exception | None = None

    def load(self) -> None:
        """There is nothing to load."""

    def encode_query(self, text: str) -> EncodedQuery:
        return self.encode_queries([text])[0]

    def encode_queries(self, texts: Sequence[str]) -> list[EncodedQuery]:
        self.passes.append(list(texts))
        self.began.set()
        assert self.go.wait(30)
        if self.error is not None:
            raise self.error
        return [EncodedQuery(np.full(2, len(text), dtype=np.float32)) for text in texts]

    def encode_passages(self, titles: Sequence[str], texts: Sequence[str]) -> EncodedPassages:
        return EncodedPassages(np.zeros((len(texts), 2), dtype=np.float32))

    def prior_idf(self, ids: npt.NDArray[np.int32]) -> None:
        return None


def asked(shared: SharedQueries, texts: Sequence[str], answers: list[Any]) -> list[threading.Thread]:
    def ask(text: str) -> None:
        try:
            answers.append((text, float(shared.encode_query(text).vector_D[0])))
        except EncoderUnavailableError as error:
            answers.append((text, str(error)))

    threads = [threading.Thread(target=ask, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    return threads


def waiting(shared: SharedQueries, count: int) -> None:
    for _ in range(3000):
        with shared._changed:
            if len(shared._waiting) == count:
                return
        threading.Event().wait(0.01)
    raise AssertionError(f"{count} queries never waited")


def test_those_that_come_during_a_pass_are_encoded_together_and_once() -> None:
    encoder = Counted()
    shared, answers = SharedQueries(encoder), []
    threads = asked(shared, ["first"], answers)
    assert encoder.began.wait(30), "an idle service begins at once"
    threads += asked(shared, ["bb", "ccc", "bb", "dddd", "first2"], answers)
    waiting(shared, 4)
    encoder.go.set()
    for thread in threads:
        thread.join(30)
    assert encoder.passes[0] == ["first"]
    assert [sorted(texts) for texts in encoder.passes[1:]] == [["bb", "ccc", "dddd", "first2"]]
    assert sorted(answers) == sorted(
        (text, float(len(text))) for text in ("first", "bb", "ccc", "bb", "dddd", "first2")
    )
    shared.encode_query("bb")
    assert [len(item.vector_D) for item in shared.encode_queries(["ccc", "new", "bb"])] == [2, 2, 2]
    assert encoder.passes[2:] == [["new"]]


def test_the_cache_is_bounded_and_keeps_what_was_asked_last() -> None:
    encoder = Counted()
    encoder.go.set()
    shared = SharedQueries(encoder, kept=3)
    for text in ("a", "b", "c", "a", "d"):
        shared.encode_query(text)
    assert list(shared._known) == ["c", "a", "d"]
    assert encoder.passes == [["a"], ["b"], ["c"], ["d"]]


def test_an_error_reaches_every_query_of_its_pass_and_no_later_one() -> None:
    encoder = Counted()
    encoder.error = EncoderUnavailableError("out of memory")
    shared, answers = SharedQueries(encoder), []
    threads = asked(shared, ["a"], answers)
    assert encoder.began.wait(30)
    threads += asked(shared, ["b", "c"], answers)
    waiting(shared, 2)
    encoder.go.set()
    for thread in threads:
        thread.join(30)
    assert [text for text, said in sorted(answers) if "out of memory" in said] == ["a", "b", "c"]
    encoder.error = None
    assert shared.encode_query("a").vector_D[0] == 1


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_alone_together_and_cached_rank_alike(precision: Any) -> None:
    dense = DenseTransformer(EncodeSettings(), precision)
    plain = VdrAdapter(DEFAULT, passage_weights=256).with_dense(dense)
    shared = SharedQueries(plain)
    passages = plain.encode_passages([""] * len(PASSAGES), PASSAGES).vectors_ND
    alone = [plain.encode_query(text) for text in QUERIES]
    together = plain.encode_queries(QUERIES)
    first = [shared.encode_query(text) for text in QUERIES]
    cached = [shared.encode_query(text) for text in QUERIES]
    for one, *others in zip(alone, together, first, cached, strict=True):
        for other in others:
            assert np.array_equal(np.argsort(-(passages @ one.vector_D)), np.argsort(-(passages @ other.vector_D)))
            assert one.weights is not None
            assert other.weights is not None
            assert np.array_equal(one.weights.ids, other.weights.ids)
            if precision == "fp32":
                assert np.abs(one.vector_D - other.vector_D).max() < 1e-6
                assert np.allclose(one.weights.weights, other.weights.weights, rtol=2**-8)
    assert all(one is other for one, other in zip(first, cached, strict=True))
