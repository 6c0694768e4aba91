"""Read and write judged mentions in BLINK's format (Wu et al. 2020): a mention, its contexts, its entity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import orjson

from hyblink.app.core.types.linking import MentionContext, NameCounts, Text
from hyblink.app.evaluation.json_lines import read_json_rows
from hyblink.app.linking.mention_detection import Detection

_OPENING = "([{<«“‘/-"
_CLOSING = ".,;:!?)]}>»”’'/-"


@dataclass(frozen=True, slots=True)
class JudgedMention:
    """A mention and its correct entity. `entity_id` is empty for NIL.

    `title` is the entity's title, if known. `exact` means that the contexts are the exact text around the mention;
    BLINK's own rows lack the spaces next to it.
    """

    id: str
    context: MentionContext
    entity_id: str
    world: str = ""
    title: str = ""
    exact: bool = False

    @property
    def text(self) -> Text:
        """The full text with the mention's span. Unless `exact`, spaces are inserted, but not next to punctuation."""
        left, mention, right = self.context.left, self.context.mention, self.context.right
        if self.exact:
            return Text(f"{left}{mention}{right}", ((len(left), len(left) + len(mention)),))
        before = f"{left} " if left and not (left[-1].isspace() or left[-1] in _OPENING) else left
        after = f" {right}" if right and not (right[0].isspace() or right[0] in _CLOSING) else right
        return Text(f"{before}{mention}{after}", ((len(before), len(before) + len(mention)),))

    @property
    def digest(self) -> int:
        """A 64-bit hash of the mention, its contexts and its entity; it does not depend on `id`."""
        parts = orjson.dumps([self.context.left, self.context.mention, self.context.right, self.entity_id])
        return int.from_bytes(blake2b(parts, digest_size=8).digest(), "little")


def read_mentions(path: Path) -> list[JudgedMention]:
    """Read judged mentions from a `.jsonl` or `.jsonl.gz` file.

    Rows have context_left, mention, context_right and label_id (absent, null or -1 for NIL), and optionally world,
    label_title, id and exact. Raises NotFoundError, and InvalidInputError with the bad lines.
    """
    return read_json_rows(path, _mention, "mentions", "context_left, mention, context_right, label_id")


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
    """Return a label as text; empty for the various ways in which files denote NIL.

    >>> [label_of(one) for one in (None, -1, "--NME--", "http://aksw.org/notInWiki/X", 12, "Q1")]
    ['', '', '', '', '12', 'Q1']
    """
    found = "" if label is None else str(label)
    return "" if found in _NIL or _NOT_THERE in found else found


REST = ":unmarked"


def with_unmarked(rows: Sequence[JudgedMention], detect: Detection) -> list[JudgedMention]:
    """Return the rows, followed by the other mentions that `detect` finds in their texts, as NIL.

    The ids of the added rows end in `REST`.
    """
    spans: dict[str, list[tuple[int, int]]] = {}
    for row in rows:
        whole = row.text
        spans.setdefault(whole.text, []).extend(whole.mentions or ())
    found = list(rows)
    for text, own in spans.items():
        for item in detect(text):
            if not any(item.start < end and start < item.end for start, end in own):
                context = MentionContext(text[: item.start], item.text, text[item.end :])
                found.append(JudgedMention(f"{len(found)}{REST}", context, "", exact=True))
    return found


def counts_of(rows: Sequence[JudgedMention]) -> NameCounts:
    """Count how often each name, in lower case, means each entity. NIL is not counted."""
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        if row.entity_id:
            own = found.setdefault(row.context.mention.lower(), {})
            own[row.entity_id] = own.get(row.entity_id, 0.0) + 1.0
    return NameCounts(found, frozenset(row.digest for row in rows if row.entity_id))


def write_mentions(path: Path, rows: Sequence[JudgedMention]) -> None:
    """Write a JSONL file of judged mentions, which `read_mentions` reads."""
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
