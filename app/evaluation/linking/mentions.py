"""Judged mentions in BLINK's rows (Wu et al. 2020): a mention, its contexts, the entity that it means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import orjson

from hyblink.app.core.types.linking import MentionContext, NameCounts, Text
from hyblink.app.evaluation.json_lines import read_each
from hyblink.app.linking.mention_detection import Detection

_OPENING = "([{<«“‘/-"
_CLOSING = ".,;:!?)]}>»”’'/-"


@dataclass(frozen=True, slots=True)
class JudgedMention:
    """A mention and the entity that it means; `entity_id` is empty where it means none of the knowledge base.

    `title` is what the entity is called, where that is known. `exact` says that the contexts are the text as it is;
    BLINK's rows have lost the spaces beside the mention.
    """

    id: str
    context: MentionContext
    entity_id: str
    world: str = ""
    title: str = ""
    exact: bool = False

    @property
    def text(self) -> Text:
        """The mention in its text, joined by spaces where they are lost: not beside punctuation."""
        left, mention, right = self.context.left, self.context.mention, self.context.right
        if self.exact:
            return Text(f"{left}{mention}{right}", ((len(left), len(left) + len(mention)),))
        before = f"{left} " if left and not (left[-1].isspace() or left[-1] in _OPENING) else left
        after = f" {right}" if right and not (right[0].isspace() or right[0] in _CLOSING) else right
        return Text(f"{before}{mention}{after}", ((len(before), len(before) + len(mention)),))

    @property
    def digest(self) -> int:
        """64 bits of the mention, its contexts and its entity, whatever its id."""
        parts = orjson.dumps([self.context.left, self.context.mention, self.context.right, self.entity_id])
        return int.from_bytes(blake2b(parts, digest_size=8).digest(), "little")


def read_mentions(path: Path) -> list[JudgedMention]:
    """Rows of a `.jsonl[.gz]`: context_left, mention, context_right, label_id (absent, null or -1 for NIL), and world,
    label_title, id, exact.

    Raises NotFoundError where there is no such file, InvalidInputError naming bad lines.
    """
    return read_each(path, _mention, "mentions", "context_left, mention, context_right, label_id")


def _mention(number: int, row: Any) -> JudgedMention:
    if not isinstance(row, Mapping):
        raise TypeError("not an object")
    context = MentionContext(*(str(row.get(name) or "") for name in ("context_left", "mention", "context_right")))
    if not context.mention.strip():
        raise ValueError("the mention is empty")
    world, title = (str(row.get(name) or "") for name in ("world", "label_title"))
    means = label_of(row.get("label_id"))
    return JudgedMention(str(row.get("id", number)), context, means, world, title, row.get("exact") is True)


_NIL = {"", "-1", "NIL", "--NME--", "*null*"}
_NOT_THERE = "://aksw.org/notInWiki/"


def label_of(label: object) -> str:
    """A label as text, empty for what files have for NIL.

    >>> [label_of(one) for one in (None, -1, "--NME--", "http://aksw.org/notInWiki/X", 12, "Q1")]
    ['', '', '', '', '12', 'Q1']
    """
    found = "" if label is None else str(label)
    return "" if found in _NIL or _NOT_THERE in found else found


REST = ":unmarked"


def with_unmarked(rows: Sequence[JudgedMention], detect: Detection) -> list[JudgedMention]:
    """The rows, and what `detect` finds beside them in their texts, as NIL; the ids of those end in `REST`."""
    spans: dict[str, list[tuple[int, int]]] = {}
    for row in rows:
        whole = row.text
        spans.setdefault(whole.text, []).extend(whole.mentions or ())
    found = list(rows)
    for text, own in spans.items():
        for one in detect(text):
            if not any(one.start < end and start < one.end for start, end in own):
                context = MentionContext(text[: one.start], one.text, text[one.end :])
                found.append(JudgedMention(f"{len(found)}{REST}", context, "", exact=True))
    return found


def counts_of(rows: Sequence[JudgedMention]) -> NameCounts:
    """How often each name, in lower case, means each entity; NIL is not counted."""
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        if row.entity_id:
            own = found.setdefault(row.context.mention.lower(), {})
            own[row.entity_id] = own.get(row.entity_id, 0.0) + 1.0
    return NameCounts(found, frozenset(row.digest for row in rows if row.entity_id))


def write_mentions(path: Path, rows: Sequence[JudgedMention]) -> None:
    """Write rows so that `read_mentions` gives them back."""
    with path.open("wb") as file:
        for row in rows:
            value = {
                "id": row.id,
                "context_left": row.context.left,
                "mention": row.context.mention,
                "context_right": row.context.right,
                "label_id": row.entity_id or None,
                "label_title": row.title,
                "world": row.world,
                "exact": row.exact,
            }
            file.write(orjson.dumps(value) + b"\n")
