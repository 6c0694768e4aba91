"""VDR's non-parametric form: a passage as the bag of its own tokens over the encoder's vocabulary (Zhou et al. 2024).

Every passage has this representation the moment it is stored; the neural weights replace it when they come. Special,
unused and punctuation tokens are left out; the query side is weighted by the index (idf over the collection).
"""

from __future__ import annotations

import re
import string
import threading
import unicodedata
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from app.core.types import TermWeights
from app.encoders.models import identity, tokenizer_file

_REMEMBERED = 1_000_000
# BERT's pre-tokenizer makes every ASCII punctuation mark a token of its own, and such tokens carry no weight.
_CHUNK = re.compile(r"[^ \t\n\r!-/:-@\[-`{-~]+")

_ONES = np.ones(4096, dtype=np.float32)
_ONES.flags.writeable = False


def _ones(count: int) -> npt.NDArray[np.float32]:
    return _ONES[:count] if count <= len(_ONES) else np.ones(count, dtype=np.float32)


class BagOfTokens:
    """Bags of tokens by a model's own tokenizer. Loading is lazy; tokenising needs no torch."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._known: dict[str, frozenset[int]] = {}
        self._learning = threading.Lock()

    @property
    def id(self) -> str:
        return f"bag:{identity(self._model)}"

    @cached_property
    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(tokenizer_file(self._model)))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = True  # a document that says "[CLS]" means five characters
        return tokenizer

    @cached_property
    def _usable(self) -> npt.NDArray[np.bool_]:
        vocabulary = self._tokenizer.get_vocab(with_added_tokens=True)
        usable = np.zeros(max(vocabulary.values()) + 1, dtype=np.bool_)
        special = {token.content for token in self._tokenizer.get_added_tokens_decoder().values() if token.special}
        for token, token_id in vocabulary.items():
            bare = token.removeprefix("##")
            reserved = token in special or (token.startswith("[") and token.endswith("]") and len(token) > 2)
            usable[token_id] = not reserved and any(
                c not in string.punctuation and unicodedata.category(c)[0] in "LNMS" for c in bare
            )
        return usable

    @cached_property
    def _by_chunk(self) -> bool:
        """Whether a text's tokens are those of its white-space chunks, one after another: true of BERT's tokenizers."""
        parts = (self._tokenizer.normalizer, self._tokenizer.pre_tokenizer, self._tokenizer.model)
        return [type(part).__name__ for part in parts] == ["BertNormalizer", "BertPreTokenizer", "WordPiece"]

    def _bags(self, texts: Sequence[str]) -> list[frozenset[int]]:
        """Usable token ids of each text, by the tokenizer itself."""
        usable = self._usable
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [frozenset(token for token in encoding.ids if usable[token]) for encoding in encodings]

    def _lowered(self, text: str) -> str:
        """Lower case where that is certain to be what the tokenizer does: more chunks are then known."""
        return text.lower() if text.isascii() and self._tokenizer.normalizer.lowercase else text

    def encode_passages(self, contents: Sequence[str]) -> list[TermWeights]:
        if not contents:
            return []
        if not self._by_chunk:
            bags: list[frozenset[int] | set[int]] = [*self._bags(contents)]
        else:
            # Words repeat: each distinct chunk is tokenised once and remembered.
            split = [set(_CHUNK.findall(self._lowered(content))) for content in contents]
            with self._learning:
                if len(self._known) > _REMEMBERED:
                    self._known = {}  # who still reads the old memory keeps it
                known = self._known
                missing = [chunk for chunk in set().union(*split) if chunk not in known]
                if missing:
                    known.update(zip(missing, self._bags(missing), strict=True))
            bags = [set().union(*map(known.__getitem__, chunks)) for chunks in split]
        result = []
        for bag in bags:
            ids = np.fromiter(bag, dtype=np.int32, count=len(bag))
            ids.sort()
            result.append(TermWeights(ids, _ones(len(ids))))
        return result

    def encode_query(self, text: str) -> list[int]:
        ids: list[int] = self.encode_passages([text])[0].ids.tolist()
        return ids

    def token(self, token_id: int) -> str:
        found = self._tokenizer.id_to_token(token_id)
        return str(found) if found is not None else f"#{token_id}"
