"""Labels mentions in texts automatically with a knowledge base (distant supervision, Mintz et al. 2009).

A name becomes a positive mention if it is a proper name by its capital letters or a technical name (`json.dump`,
`read_text`), is not part of a longer name, and belongs to exactly one entity. All other possible names are ignored in
the loss. All remaining spans are negatives. Texts in scripts without letter case yield nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hyblink.app.core.types.linking import Mention
from hyblink.app.linking.surface_forms import FUNCTION_WORDS, folded
from hyblink.training.data.rows import Text
from hyblink.training.linking.spans import Span, SpanRow

_WORD = re.compile(r"\w+(?:[-.&/]\w+|['\u2019](?!s\b)\w+)*")
_BEGINNING = re.compile('[.!?:;|\n"\u201c\u2018]')
_INNER = frozenset(("of", "the", "for", "de", "la", "le", "du", "des", "del", "di", "da", "von", "van", "der", "den"))
"""Lower-case words that may connect the parts of a name: "Bank of the Orient"."""
_LONGEST = 10


@dataclass(frozen=True, slots=True)
class _Word:
    start: int
    end: int
    text: str
    follows: bool
    """Only spaces separate it from the previous word."""
    proper: bool
    doubtful: bool
    """Its only capital letter may be due to the start of a sentence."""


def _words(text: str) -> list[_Word]:
    made: list[_Word] = []
    for found in _WORD.finditer(text):
        word, start = found.group(), found.start()
        gap = text[made[-1].end : start] if made else "\n"
        follows = bool(made) and gap.isspace() and "\n" not in gap
        upper = sum(item.isupper() for item in word)
        first = upper == 1 and word[0].isupper() and _BEGINNING.search(gap) is not None
        technical = any(item in "._" for item in word) and any(item.isalpha() for item in word)
        proper = technical or (upper > 0 and not (first and folded(word) in FUNCTION_WORDS))
        made.append(_Word(start, found.end(), word, follows, proper, proper and first and not technical))
    return made


def _runs(words: Sequence[_Word]) -> list[list[int]]:
    """Word indices of each proper name: capitalised words, numbers after them, and connecting words between them."""
    runs: list[list[int]] = []
    waiting: list[int] = []
    for at, word in enumerate(words):
        if runs and word.follows and (waiting or runs[-1][-1] == at - 1):
            if word.proper or (word.text[0].isdigit() and not waiting):
                runs[-1] += [*waiting, at]
                waiting = []
                continue
            if word.text in _INNER and len(waiting) < 2:
                waiting.append(at)
                continue
        waiting = []
        if word.proper:
            runs.append([at])
    return runs


def distant_row(
    name: str,
    text: str,
    detect: Callable[[str], Sequence[Mention]],
    names_in: Callable[[str], Sequence[Span]],
    meanings: Callable[[str], Sequence[str]],
) -> SpanRow | None:
    """The training row of a text, with `name` as its id, or None if no mention is certain.

    `detect` returns the longest non-overlapping names, `names_in` the spans of all names, and `meanings` the ids of all
    entities with a name.
    """
    words = _words(text)
    runs = _runs(words)
    begins = {words[run[0]].start for run in runs}
    ends = {words[run[-1]].end for run in runs}
    sure = [(word.start, word.end) for word in words if word.proper and not word.doubtful]
    found: dict[Span, str] = {}
    for mention in detect(text):
        a, b = mention.start, mention.end
        if a not in begins or b not in ends or not any(a <= start and end <= b for start, end in sure):
            continue
        means = meanings(mention.text)
        if len(means) == 1:
            found[a, b] = means[0]
    if not found:
        return None
    possible = set(names_in(text))
    for run in runs:
        parts = [words[at] for at in run]
        possible |= {(a.start, b.end) for at, a in enumerate(parts) for b in parts[at : at + _LONGEST]}
    taken = list(found)
    ignored = [(a, b) for a, b in sorted(possible) if not any(a < end and start < b for start, end in taken)]
    spans = tuple(sorted(found))
    return SpanRow(
        text, tuple(Text("", id=found[span]) for span in spans), id=name, spans=spans, ignored=tuple(ignored)
    )
