"""VDR's non-parametric form: a passage as the bag of its own tokens over the encoder's vocabulary (Zhou et al. 2024).

Every passage has this representation the moment it is stored; the neural weights replace it when they come. Special,
unused and punctuation tokens are left out; the query side is weighted by the index (idf over the collection).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from app.core.types import TermWeights
from app.encoders.models import identity, tokenizer_file


class BagOfTokens:
    """Bags of tokens by a model's own tokenizer. Loading is lazy; tokenising needs no torch."""

    def __init__(self, model: str) -> None:
        self._model = model

    @property
    def id(self) -> str:
        return f"bag:{identity(self._model)}"

    @cached_property
    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(tokenizer_file(self._model)))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer

    @cached_property
    def _usable(self) -> npt.NDArray[np.bool_]:
        vocabulary = self._tokenizer.get_vocab(with_added_tokens=True)
        usable = np.zeros(max(vocabulary.values()) + 1, dtype=np.bool_)
        special = {token.content for token in self._tokenizer.get_added_tokens_decoder().values() if token.special}
        for token, token_id in vocabulary.items():
            bare = token.removeprefix("##")
            reserved = token in special or (token.startswith("[") and token.endswith("]") and len(token) > 2)
            usable[token_id] = not reserved and any(unicodedata.category(c)[0] in "LNMS" for c in bare)
        return usable

    def encode_passages(self, contents: Sequence[str]) -> list[TermWeights]:
        if not contents:
            return []
        encodings = self._tokenizer.encode_batch_fast(list(contents), add_special_tokens=False)
        lists = [encoding.ids for encoding in encodings]
        lengths = np.fromiter(map(len, lists), dtype=np.int64, count=len(lists))
        flat = np.fromiter((token for ids in lists for token in ids), dtype=np.int64, count=int(lengths.sum()))
        owner = np.repeat(np.arange(len(lists), dtype=np.int64), lengths)
        # One sort for the whole batch: (passage, token) packed into one integer.
        pairs = np.unique((owner << 32 | flat)[self._usable[flat]])
        tokens = (pairs & 0xFFFFFFFF).astype(np.int32)
        cuts = np.searchsorted(pairs >> 32, np.arange(len(lists) + 1))
        return [
            TermWeights(tokens[start:end], np.ones(end - start, dtype=np.float32))
            for start, end in zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True)
        ]

    def encode_query(self, text: str) -> list[int]:
        ids: list[int] = self.encode_passages([text])[0].ids.tolist()
        return ids

    def token(self, token_id: int) -> str:
        found = self._tokenizer.id_to_token(token_id)
        return str(found) if found is not None else f"#{token_id}"
