"""Which entries of a tokenizer's vocabulary can have a weight, and where they begin."""

from __future__ import annotations

import string
import unicodedata
from typing import Any

import numpy as np

from hyblink.app.core.types.arrays import BoolArray


def _reserved(tokenizer: Any) -> BoolArray:
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    special = {token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special}
    reserved = np.ones(max(vocabulary.values()) + 1, dtype=np.bool_)
    for token, token_id in vocabulary.items():
        bracketed = len(token) > 2 and (token[0], token[-1]) in {("[", "]"), ("<", ">")}
        reserved[token_id] = token in special or bracketed
    return reserved


def usable_tokens(tokenizer: Any) -> BoolArray:
    """A mask over the vocabulary, shape (V,): True for tokens of text, False for special, unused and punctuation ones.

    `tokenizer` is a `tokenizers.Tokenizer`. The markers "##" (WordPiece) and "▁" (SentencePiece) do not count as text.
    """
    usable = ~_reserved(tokenizer)
    for token, token_id in tokenizer.get_vocab(with_added_tokens=True).items():
        bare = token.removeprefix("##").removeprefix("▁")
        if usable[token_id]:
            usable[token_id] = any(c not in string.punctuation and unicodedata.category(c)[0] in "LNMS" for c in bare)
    return usable


def vocabulary_shift(tokenizer: Any) -> int:
    """The number of special or unused entries at the beginning of the vocabulary: 999 for BERT uncased."""
    reserved = _reserved(tokenizer)
    return int(np.argmin(reserved)) if not reserved.all() else len(reserved)
