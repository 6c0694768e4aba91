"""A model's tokenizer as both runtimes use it: ids without special tokens, and rows with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hyblink.app.core.errors import EncoderUnavailableError

Ids = Sequence[int]


class TextTokens:
    """A `tokenizers.Tokenizer` that never cuts or pads. Safe to share between threads."""

    def __init__(self, tokenizer: Any, padding: int, *, lower: bool = False) -> None:
        """`padding` is the id of padding tokens. `lower` means that texts are lower-cased first."""
        self.tokenizer = tokenizer
        self.padding = padding
        self._lower = lower
        around = tokenizer.encode("").ids
        if len(around) != 2:
            raise EncoderUnavailableError(
                "a tokenizer that does not put one token before and one behind a text", received=around
            )
        self._first, self._last = around

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The token ids of each text, without special tokens. White space around a text is ignored."""
        given = [text.strip().lower() if self._lower else text.strip() for text in texts]
        # `encode` of one text avoids the thread pool that tokenises batches.
        made = (
            [self.tokenizer.encode(given[0], add_special_tokens=False)]
            if len(given) == 1
            else self.tokenizer.encode_batch_fast(given, add_special_tokens=False)
        )
        return [item.ids for item in made]

    def with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """(token ids without special tokens, their offsets in code points)."""
        if not self._lower:
            made = self.tokenizer.encode(text, add_special_tokens=False)
            return made.ids, made.offsets
        # Some characters have two in lower case, such as İ: offsets are those of the text as it was given.
        given = [at for at, character in enumerate(text) for _ in character.lower()]
        made = self.tokenizer.encode(text.lower(), add_special_tokens=False)
        return made.ids, [(given[start], given[end - 1] + 1) if end > start else (0, 0) for start, end in made.offsets]

    def row(self, ids: Ids) -> list[int]:
        """The ids between the special tokens."""
        return [self._first, *ids, self._last]


def padded(rows: Sequence[Ids], padding: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """(ids, mask), each (B, L): rows of token ids filled up with `padding`; the mask is 1 for tokens of a row."""
    longest = max(len(row) for row in rows)
    ids_BL = np.full((len(rows), longest), padding, dtype=np.int64)
    mask_BL = np.zeros((len(rows), longest), dtype=np.int32)
    for number, row in enumerate(rows):
        ids_BL[number, : len(row)] = row
        mask_BL[number, : len(row)] = 1
    return ids_BL, mask_BL
