"""Where sentences end."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import regex

# Behind a stop with what closes beside it, before a capital or a digit; behind a stop of CJK; behind a line's end.
_END = regex.compile(r"""(?<=[.!?…]["')\]»”’]*)\s+(?=["'(\[«“‘]*[\p{Lu}\p{N}])|(?<=[。！？])|\n+""")
_ABBREVIATED = regex.compile(
    r"\b(?:\p{Lu}\p{L}?|\p{L}(?:\.\p{L})+|Mrs|Gen|Sen|Rev|Col|Sgt|Capt|Prof|Gov|Rep|Hon|vs|cf|al|approx)\.\s*$"
)
_LOOKED_AT = 16


def sentence_ends(text: str, starts: Sequence[int]) -> list[int]:
    """The numbers of tokens behind which sentences end, ascending, the last token's among them; none of no token.

    `starts` are where tokens begin, in code points. "Dr.", "St." and "U.S." end no sentence.

    >>> sentence_ends("He met Dr. Who. She left!", [0, 3, 7, 9, 11, 14, 16, 20, 24])
    [6, 9]
    """
    cuts = [one.end() for one in _END.finditer(text) if not _abbreviates(text, one.start(), one.end())]
    found = np.searchsorted(np.asarray(starts), cuts) if len(starts) else np.zeros(0, dtype=np.int64)
    return sorted({*found.tolist(), len(starts)} - {0})


def _abbreviates(text: str, at: int, end: int) -> bool:
    return "\n" not in text[at:end] and bool(_ABBREVIATED.search(text[max(0, at - _LOOKED_AT) : at]))
