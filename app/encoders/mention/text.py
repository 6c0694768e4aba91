"""The input text of mention encoders: ``left [Ms] mention [Me] right``, cut to a token limit (Wu et al. 2020).

The context is measured in the encoder's own tokens. Room that one side does not use goes to the other side. The marks
are characters of the existing vocabulary, so an adapter on a frozen backbone needs no new embeddings, and tokenizers
and exports need no changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hyblink.app.core.types.linking import MentionContext

START_MARK, END_MARK = "«", "»"
_PLAIN = str.maketrans({START_MARK: '"', END_MARK: '"'})
_CHARS_PER_TOKEN = 24
"""Context is cut to this many characters per token of room before it is tokenised."""


def context_quota(left: int, mention: int, right: int, room: int) -> tuple[int, int]:
    """(left, right): how many tokens of context to keep on each side, so that all fit in `room` with the mention.

    The arguments are the available lengths in tokens.

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
    """Each mention between marks with its context, at most `room` tokens in all, special tokens included.

    `tokenizer` is a `tokenizers.Tokenizer` without truncation. A longer mention is cut at its end.
    """
    room = max(1, room - 4)  # [CLS], two marks, [SEP]
    reach = room * _CHARS_PER_TOKEN
    parts = [
        part.translate(_PLAIN)
        for context in contexts
        for part in (context.left[-reach:] if context.left else "", context.mention[:reach], context.right[:reach])
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
