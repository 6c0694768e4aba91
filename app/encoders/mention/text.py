"""A mention with as much of its context as an encoder reads, ``left [Ms] mention [Me] right`` (Wu et al. 2020).

The quota is counted in the encoder's own tokens; what one side does not use goes to the other, and a quota of zero
keeps nothing. The marks are characters that the vocabulary already has, so that an adapter on a frozen backbone
learns what they mean without new embeddings, and any tokenizer or export reads the same text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hyblink.app.core.types.linking import MentionContext

START_MARK, END_MARK = "«", "»"
_PLAIN = str.maketrans({START_MARK: '"', END_MARK: '"'})
_CHARS_PER_TOKEN = 24
"""Context beyond so many characters per token of the quota is not looked at."""


def context_quota(left: int, mention: int, right: int, room: int) -> tuple[int, int]:
    """How many tokens of the left and the right context stay, of `room` for all with the mention.

    >>> context_quota(100, 4, 100, 24)
    (10, 10)
    >>> context_quota(2, 4, 100, 24)
    (2, 18)
    >>> context_quota(100, 30, 100, 24)
    (0, 0)
    """
    rest = max(0, room - mention)
    own_left = min(left, rest // 2)
    own_right = min(right, rest - own_left)
    return min(left, rest - own_right), own_right


def marked(tokenizer: Any, contexts: Sequence[MentionContext], room: int) -> list[str]:
    """Each mention between its marks with its context, so many tokens in all, marks and special tokens included.

    `tokenizer` is a `tokenizers.Tokenizer` without truncation. A mention longer than the room is cut at its end.
    """
    room = max(1, room - 4)  # [CLS], two marks, [SEP]
    reach = room * _CHARS_PER_TOKEN
    parts = [
        part.translate(_PLAIN)
        for one in contexts
        for part in (one.left[-reach:] if one.left else "", one.mention[:reach], one.right[:reach])
    ]
    offsets = [made.offsets for made in tokenizer.encode_batch(parts, add_special_tokens=False)]
    found = []
    for at in range(len(contexts)):
        (left, mention, right), (of_left, of_mention, of_right) = (
            parts[3 * at : 3 * at + 3],
            offsets[3 * at : 3 * at + 3],
        )
        keep_left, keep_right = context_quota(len(of_left), len(of_mention), len(of_right), room)
        before = left[of_left[-keep_left][0] :] if keep_left else ""
        after = right[: of_right[keep_right - 1][1]] if keep_right else ""
        if len(of_mention) > room:
            mention = mention[: of_mention[room - 1][1]]
        found.append(f"{before.rstrip()} {START_MARK} {mention.strip()} {END_MARK} {after.lstrip()}".strip())
    return found
