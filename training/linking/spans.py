"""Texts with all their gold mentions, for training a span head and for evaluating end-to-end linking.

The format is ELQ's JSONL (Li et al. 2020): `id, text, mentions [[start, end]], label_id` (or `wikidata_id`; null is
NIL), and `label_title, label` if the entity texts are needed. Two fields are our own: `ignore [[start, end]]` holds
spans that may be unmarked mentions and are left out of the loss, and `hard [[id, …], …]` holds wrong candidates of each
mention. Spans are code point offsets, end exclusive.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from hyblink.app.analysis.sentences import sentence_ends
from hyblink.app.encoders.mention.span_head import span_windows
from hyblink.app.evaluation.json_lines import read_json_rows
from hyblink.app.evaluation.linking.mentions import JudgedMention, label_of
from hyblink.training.data.rows import Text, TrainingRow

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class SpanRow(TrainingRow):
    """A text (`query`) with the spans of its mentions. `positives` are their entities, in the same order.

    `ignored` are spans that the loss leaves out.
    """

    spans: tuple[Span, ...] = ()
    ignored: tuple[Span, ...] = ()
    hard: tuple[tuple[str, ...], ...] = ()
    """For each mention the entity ids of wrong candidates (hard negatives). Empty if none were mined."""


def read_spans(path: Path) -> list[SpanRow]:
    """Read rows from `.jsonl[.gz]`. Raises NotFoundError, or InvalidInputError that names bad lines."""
    return read_json_rows(path, _spans, "texts with mentions", "text, mentions, label_id")


def _spans(number: int, row: Any) -> SpanRow:
    if not isinstance(row, Mapping):
        raise TypeError("not an object")
    text = str(row["text"])
    spans = tuple((int(a), int(b)) for a, b in row["mentions"])
    ignored = tuple((int(a), int(b)) for a, b in row.get("ignore") or ())
    given = row.get("label_id", row.get("wikidata_id"))
    labels = [label_of(value) for value in (given if isinstance(given, list) else [] if given is None else [given])]
    if len(labels) != len(spans):
        raise ValueError(f"{len(labels)} labels for {len(spans)} mentions")
    bad = [span for span in (*spans, *ignored) if not 0 <= span[0] < span[1] <= len(text)]
    if bad:
        raise ValueError(f"the span {list(bad[0])} lies outside the text of {len(text)} characters")
    titles, described = (
        [str(item) for item in row.get(name) or [""] * len(labels)] for name in ("label_title", "label")
    )
    means = tuple(Text(*item) for item in zip(described, titles, labels, strict=True))
    hard = tuple(tuple(str(item) for item in own) for own in row.get("hard") or ())
    if hard and len(hard) != len(spans):
        raise ValueError(f"wrong candidates of {len(hard)} of {len(spans)} mentions")
    return SpanRow(text, means, id=str(row.get("id", number)), spans=spans, ignored=ignored, hard=hard)


def write_spans(path: Path, rows: Sequence[SpanRow]) -> None:
    """Write rows as JSONL that `read_spans` can read."""
    with path.open("wb") as file:
        for row in rows:
            value = {
                "id": row.id,
                "text": row.query,
                "mentions": row.spans,
                "label_id": [positive.id or None for positive in row.positives],
                "ignore": row.ignored,
            }
            if row.hard:
                value["hard"] = row.hard
            if any(positive.joined for positive in row.positives):
                value |= {
                    "label_title": [positive.title for positive in row.positives],
                    "label": [positive.text for positive in row.positives],
                }
            file.write(orjson.dumps(value) + b"\n")


def _squeezed(text: str) -> str:
    return "".join(text.split())


def place_of(text: str, row: JudgedMention) -> Span | None:
    """The span of a mention in the text that its context was taken from, or None if it is not found.

    It is the first occurrence that the left context precedes, ignoring white space.
    """
    left, mention = _squeezed(row.context.left), row.context.mention
    at = text.find(mention)
    while at >= 0:
        if _squeezed(text[:at]).endswith(left):
            return at, at + len(mention)
        at = text.find(mention, at + 1)
    return None


def joined_rows(
    rows: Sequence[JudgedMention],
    document_of: Callable[[JudgedMention], str],
    texts: Mapping[str, str],
    names_in: Callable[[str], Sequence[Span]],
    hard_of: Callable[[JudgedMention], Sequence[str]] = lambda _: (),
) -> list[SpanRow]:
    """One row for each document with all of its mentions. Names without a mark become ignored spans.

    `document_of` returns the key of a mention's document, `texts` maps keys to texts, `names_in` returns the spans of
    all names in a text, `hard_of` the wrong candidates of a mention. Documents without text or mentions are left out.
    """
    by_document: dict[str, list[JudgedMention]] = {}
    for row in rows:
        by_document.setdefault(document_of(row), []).append(row)
    made = []
    for document, own in by_document.items():
        text = texts.get(document)
        if text is None:
            continue
        found: dict[Span, JudgedMention] = {}
        for row in own:
            span = place_of(text, row)
            if span is not None:
                found.setdefault(span, row)
        if not found:
            continue
        spans = tuple(sorted(found))
        ignored = tuple(span for span in names_in(text) if span not in found)
        means = tuple(Text("", id=found[span].entity_id) for span in spans)
        hard = tuple(tuple(hard_of(found[span])) for span in spans)
        made.append(SpanRow(text, means, id=document, spans=spans, ignored=ignored, hard=hard if any(hard) else ()))
    return made


def context_rows(
    rows: Sequence[JudgedMention],
    names_in: Callable[[str], Sequence[Span]],
    hard_of: Callable[[JudgedMention], Sequence[str]] = lambda _: (),
) -> list[SpanRow]:
    """One row for each distinct context, with all mentions that have it.

    Contexts are equal if they differ only in white space and final punctuation. Mentions that are not found in the
    first of the equal contexts are left out. `names_in` and `hard_of` are as in `joined_rows`.
    """

    def context(row: JudgedMention) -> str:
        return _squeezed(row.text.text).rstrip(".,;:")

    first: dict[str, JudgedMention] = {}
    for row in rows:
        first.setdefault(context(row), row)
    texts = {squeezed: row.text.text for squeezed, row in first.items()}
    return [replace(row, id=first[row.id].id) for row in joined_rows(rows, context, texts, names_in, hard_of)]


def cut_to(rows: Sequence[SpanRow], tokenizer: Any, most: int) -> list[SpanRow]:
    """The rows, with texts of more than `most` tokens cut at sentence ends into several rows.

    Mentions across a cut are left out. `tokenizer` is a `tokenizers.Tokenizer` without truncation.
    """
    made: list[SpanRow] = []
    for row in rows:
        offsets = tokenizer.encode(row.query, add_special_tokens=False).offsets
        if len(offsets) <= most:
            made.append(row)
            continue
        for span_window in span_windows(sentence_ends(row.query, [start for start, _ in offsets]), most, most):
            start, end = offsets[span_window.own_start][0], offsets[span_window.own_end - 1][1]
            inside = [at for at, (a, b) in enumerate(row.spans) if start <= a and b <= end]
            made.append(
                replace(
                    row,
                    query=row.query[start:end],
                    positives=tuple(row.positives[at] for at in inside),
                    spans=_moved([row.spans[at] for at in inside], start),
                    ignored=_moved([(a, b) for a, b in row.ignored if start <= a and b <= end], start),
                    hard=tuple(row.hard[at] for at in inside) if row.hard else (),
                )
            )
    return made


def _moved(spans: Sequence[Span], by: int) -> tuple[Span, ...]:
    return tuple((a - by, b - by) for a, b in spans)
