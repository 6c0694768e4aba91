"""Sentence splitting by rules."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import regex

# A sentence ends after . ! ? … with closing quotes or brackets, if a capital letter or a digit follows; after CJK
# punctuation; and at a line break.
_END = regex.compile(r"""[.!?…]["')\]»”’]*+(\s++)(?=["'(\[«“‘]*+[\p{Lu}\p{N}])|(?<=[。！？])()|(\n+)""")
_ABBREVIATED = regex.compile(
    r"\b(?:\p{Lu}\p{L}?|\p{L}(?:\.\p{L})+|Mrs|Gen|Sen|Rev|Col|Sgt|Capt|Prof|Gov|Rep|Hon|vs|cf|al|approx)\.\s*$"
)
_LOOKED_AT = 16


def sentence_ends(text: str, starts: Sequence[int]) -> list[int]:
    """The ends of the sentences, as exclusive token indexes, ascending. The last one is the number of tokens.

    `starts` are the tokens' start offsets in code points. Without tokens the list is empty. "Dr.", "St." and "U.S." do
    not end a sentence.

    >>> sentence_ends("He met Dr. Who. She left!", [0, 3, 7, 9, 11, 14, 16, 20, 24])
    [6, 9]
    """
    ends = ((item.start(item.lastindex or 0), item.end()) for item in _END.finditer(text))
    cuts = [end for at, end in ends if not _abbreviates(text, at, end)]
    found = np.searchsorted(np.asarray(starts), cuts) if len(starts) else np.zeros(0, dtype=np.int64)
    return sorted({*found.tolist(), len(starts)} - {0})


def _abbreviates(text: str, at: int, end: int) -> bool:
    return "\n" not in text[at:end] and bool(_ABBREVIATED.search(text[max(0, at - _LOOKED_AT) : at]))
