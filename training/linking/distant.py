"""Texts with mentions that nobody has judged, by distant supervision (Mintz et al. 2009): what a knowledge base tells.

A name is taken for a mention of an entity where it is a proper name by its letters' case, or such as `json.dump` and
`read_text`, is no part of a longer one, and means this entity alone. Whatever else may be a name is left out of the
loss; all other spans are none. Scripts without case give no such texts.
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
"""Words that names have between their parts: "Bank of the Orient"."""
_LONGEST = 10


@dataclass(frozen=True, slots=True)
class _Word:
    start: int
    end: int
    text: str
    follows: bool
    """Nothing but spaces stands before it and after the word before."""
    proper: bool
    doubtful: bool
    """Its capital may be that of its sentence."""


def _words(text: str) -> list[_Word]:
    made: list[_Word] = []
    for found in _WORD.finditer(text):
        word, start = found.group(), found.start()
        gap = text[made[-1].end : start] if made else "\n"
        follows = bool(made) and gap.isspace() and "\n" not in gap
        upper = sum(one.isupper() for one in word)
        first = upper == 1 and word[0].isupper() and _BEGINNING.search(gap) is not None
        technical = any(one in "._" for one in word) and any(one.isalpha() for one in word)
        proper = technical or (upper > 0 and not (first and folded(word) in FUNCTION_WORDS))
        made.append(_Word(start, found.end(), word, follows, proper, proper and first and not technical))
    return made


def _runs(words: Sequence[_Word]) -> list[list[int]]:
    """The places of the words of each proper name: words with capitals, numbers after them, small words between."""
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
    """A text's row, `name` its id; None where no mention is certain.

    `detect` gives the longest names, `names_in` all, and `meanings` the ids of all entities of a name.
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
