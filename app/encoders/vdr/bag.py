"""Bags of tokens, VDR's non-parametric representation: a passage's own tokens, all with weight 1 (Zhou et al. 2024).

Every passage has it as soon as it is stored, before it is encoded. Special, unused and punctuation tokens are left out.
The index weights the query's tokens by idf over the collection.
"""

from __future__ import annotations

import string
import threading
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from hyblink.app.core.types.arrays import TermWeights
from hyblink.app.encoders.loading.models import identity, plain_tokenizer
from hyblink.app.encoders.vdr.vocabulary import usable_tokens

_MANY = 64
"""The number of texts from which on the word table is used, since loading it takes time."""

_CHUNKS = 512
"""The number of words per call of the tokenizer."""

_Ids = npt.NDArray[np.int32]

_ONES = np.ones(4096, dtype=np.float32)
_ONES.flags.writeable = False


def _ones(count: int) -> npt.NDArray[np.float32]:
    return _ONES[:count] if count <= len(_ONES) else np.ones(count, dtype=np.float32)


class BagOfTokens:
    """The `BagEncoder` of a model's tokenizer, which is loaded at the first use. It needs no torch."""

    def __init__(self, model: str) -> None:
        self._model = model

    @cached_property
    def id(self) -> str:
        return f"bag:{identity(self._model)}"

    @cached_property
    def _tokenizer(self) -> Any:
        tokenizer = plain_tokenizer(self._model)
        tokenizer.encode_special_tokens = True  # the string "[CLS]" in a document is text, not the special token
        return tokenizer

    @cached_property
    def _usable(self) -> npt.NDArray[np.bool_]:
        return usable_tokens(self._tokenizer)

    @cached_property
    def _by_chunk(self) -> bool:
        """Whether tokenising white-space chunks one by one gives a text's tokens, as with BERT's tokenizers."""
        parts = (self._tokenizer.normalizer, self._tokenizer.pre_tokenizer, self._tokenizer.model)
        return [type(part).__name__ for part in parts] == ["BertNormalizer", "BertPreTokenizer", "WordPiece"]

    def _bag(self, encoding: Any) -> _Ids:
        """The distinct usable token ids of a tokenised text, ascending."""
        ids = np.unique(np.array(encoding.ids, dtype=np.int32))
        return ids[self._usable[ids]]

    def _bags(self, texts: Sequence[str]) -> list[_Ids]:
        return [self._bag(encoding) for encoding in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)]

    def _ids_of_chunks(self, chunks: Sequence[str]) -> tuple[npt.NDArray[np.int64], _Ids]:
        """(number of usable tokens of each chunk, their ids concatenated)."""
        counts, found = [], []
        for at in range(0, len(chunks), _CHUNKS):
            some = chunks[at : at + _CHUNKS]
            starts = np.cumsum([0, *(len(chunk) + 1 for chunk in some)])
            encoding = self._tokenizer.encode(" ".join(some), add_special_tokens=False)
            ids = np.array(encoding.ids, dtype=np.int32)
            begins = np.fromiter((start for start, _ in encoding.offsets), dtype=np.int64, count=len(ids))
            keep = self._usable[ids]
            owners = np.searchsorted(starts, begins[keep], side="right") - 1
            counts.append(np.bincount(owners, minlength=len(some)))
            found.append(ids[keep])
        return np.concatenate(counts), np.concatenate(found)

    @cached_property
    def _many(self) -> _ManyTexts:
        usable = self._usable
        return _ManyTexts(self._ids_of_chunks, len(usable), lower=bool(self._tokenizer.normalizer.lowercase))

    def encode_passages(self, contents: Sequence[str]) -> list[TermWeights]:
        if len(contents) >= _MANY and self._by_chunk:
            bags, odd = self._many.bags(contents)
            for at, bag in zip(odd, self._bags([contents[at] for at in odd]), strict=True):
                bags[at] = bag
        else:
            bags = self._bags(contents)
        return [TermWeights(ids, _ones(len(ids))) for ids in bags]

    def encode_query(self, text: str) -> list[int]:
        # `encode` of one text avoids the thread pool that tokenises batches.
        ids: list[int] = self._bag(self._tokenizer.encode(text, add_special_tokens=False)).tolist()
        return ids

    def token(self, token_id: int) -> str:
        found = self._tokenizer.id_to_token(token_id)
        return str(found) if found is not None else f"#{token_id}"


class _ManyTexts:
    """Bags of many texts at once, with a table of distinct words. Safe to share between threads, by a lock.

    BERT's pre-tokenizer splits at white space and makes each ASCII punctuation mark a token, which has no weight. So
    each distinct word between them is tokenised once and cached.
    """

    def __init__(
        self, ids: Callable[[Sequence[str]], tuple[npt.NDArray[np.int64], _Ids]], vocabulary: int, *, lower: bool
    ) -> None:
        from hyblink.app.analysis import word_table as words

        self._words = words
        self._ids = ids
        self._vocabulary = vocabulary
        self._lower = lower  # as the tokenizer does, so that fewer distinct words have to be tokenised
        self._lock = threading.Lock()
        self._classes = np.full(128, words.LETTER, dtype=np.uint8)
        self._classes[[ord(c) for c in " \t\n\r" + string.punctuation]] = words.OTHER
        self._start()

    def _start(self) -> None:
        self._table = self._words.WordTable(self._classes, self._words.LETTER, lower=self._lower)
        self._tokens = self._words.Values(np.int32)

    def bags(self, texts: Sequence[str]) -> tuple[list[_Ids], list[int]]:
        """(bags, indexes of the texts that the table cannot process and the caller must tokenise itself)."""
        with self._lock:
            if self._table.full:
                self._start()
            found = self._table.cut(texts)
            known, words = len(self._tokens), len(self._table)
            if words > known:
                self._tokens.extend(*self._ids([self._table.word(number) for number in range(known, words)]))
            tokens, offsets = self._tokens.data, self._tokens.offsets
            out = np.empty(self._tokens.total(found), dtype=np.int32)
        ends = np.empty(len(texts), dtype=np.int64)
        seen = np.full(self._vocabulary, -1, dtype=np.int32)
        self._words.union_values(found.numbers, found.ends, offsets, tokens, seen, out, ends)
        bags = np.split(out, ends)[:-1]
        return bags, np.flatnonzero(found.odd).tolist()
