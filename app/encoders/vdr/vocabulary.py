"""Which entries of a tokenizer's vocabulary can carry weight, and where they begin."""

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
    """True where a token stands for text: not special, not unused, not punctuation alone. Shape (V,).

    `tokenizer` is a `tokenizers.Tokenizer`. "##" (WordPiece) and "▁" (SentencePiece) are no text.
    """
    usable = ~_reserved(tokenizer)
    for token, token_id in tokenizer.get_vocab(with_added_tokens=True).items():
        bare = token.removeprefix("##").removeprefix("▁")
        if usable[token_id]:
            usable[token_id] = any(c not in string.punctuation and unicodedata.category(c)[0] in "LNMS" for c in bare)
    return usable


def vocabulary_shift(tokenizer: Any) -> int:
    """How many entries the vocabulary begins with that stand for no text: 999 for BERT uncased, 106 for its Chinese."""
    reserved = _reserved(tokenizer)
    return int(np.argmin(reserved)) if not reserved.all() else len(reserved)
