"""The analyzer: turns text into index terms, in the same way for every engine.

Tokens are UAX #29 words (Unicode default word boundaries, as in Lucene's standard tokenizer). Then come:
lower case → English possessive → stop words → identifier parts → stemmer (Snowball English) → CJK bigrams.
A compound such as ``json.dump`` or ``to_dict`` gives its whole name and its parts as terms, so a query can match
either. Runs of Han, Hiragana, Katakana and Hangul become overlapping bigrams.

Every token keeps its offsets in code points, from which highlights are made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from hyblink.app.analysis.many_texts import ManyTexts
from hyblink.app.analysis.terms import ANALYZER_VERSION, ANALYZERS, MAX_TOKEN_CHARS, TERMS_OF_WORD
from hyblink.app.analysis.word_breaks import LATIN_TOKEN, TOKEN, latin_pieces
from hyblink.app.core.errors import InvalidInputError

_REMEMBERED = 500_000

_MANY = 64
"""The number of texts from which on the word table is used, since loading it takes time."""


@dataclass(frozen=True, slots=True)
class Token:
    """An analyzed term and its offsets `start:end` in the text, in code points."""

    term: str
    start: int
    end: int


class _JoinedTerms(dict[str, str]):
    """A cache: raw word → its terms joined by spaces. It is cleared when it holds `_REMEMBERED` words."""

    def __init__(self, terms_of: Callable[[str], Sequence[str]]) -> None:
        super().__init__()
        self.terms_of_word = terms_of

    def __missing__(self, raw: str) -> str:
        if len(self) >= _REMEMBERED:
            self.clear()
        joined = " ".join(self.terms_of_word(raw))
        self[raw] = joined
        return joined


class Analyzer:
    """Turns text into terms. It is cheap to create and safe to share between threads.

    `name` is `english` (stop words, possessive, stemmer) or `standard` (none of these). Both split CJK into bigrams.
    `id` is the name with the analyzer version. Raises InvalidInputError for an unknown name.

    >>> Analyzer("english").terms("The dogs' owner's json.dump and 機械学習")
    ['dog', 'owner', 'json.dump', 'json', 'dump', '機械', '械学', '学習']
    """

    def __init__(self, name: str = "english") -> None:
        if name not in TERMS_OF_WORD:
            raise InvalidInputError("unknown analyzer", received=name, expected=f"one of {', '.join(ANALYZERS)}")
        self.name = name
        self.id = f"{name}:{ANALYZER_VERSION}"
        self.terms_of_word = TERMS_OF_WORD[name]
        self._joined = _JoinedTerms(self._long)

    def terms(self, text: str) -> list[str]:
        """The text's terms in order, with repetitions."""
        terms: list[str] = []
        for piece, latin in latin_pieces(text):
            if not latin:
                terms += [token.term for token in self.tokens(piece)]
                continue
            for raw in LATIN_TOKEN.findall(piece):
                terms += self._long(raw)
        return terms

    def joined(self, text: str) -> str:
        """The text's terms joined by spaces, for an index with a white-space tokenizer.

        A word without terms, such as a stop word, leaves an additional space.
        """
        remembered = self._joined.__getitem__
        return " ".join(
            " ".join(map(remembered, LATIN_TOKEN.findall(piece)) if latin else (t.term for t in self.tokens(piece)))
            for piece, latin in latin_pieces(text)
        )

    def joined_many(self, texts: Sequence[str]) -> list[str]:
        """`joined` of each text; much faster than single calls for many texts."""
        if len(texts) < _MANY:
            return [self.joined(text) for text in texts]
        return self._many.joined(texts)

    @cached_property
    def _many(self) -> ManyTexts:
        return ManyTexts(self.name, self.joined)

    def _long(self, raw: str) -> Sequence[str]:
        if len(raw) <= MAX_TOKEN_CHARS:
            return self.terms_of_word(raw)
        pieces = [raw[i : i + MAX_TOKEN_CHARS] for i in range(0, len(raw), MAX_TOKEN_CHARS)]
        return [term for piece in pieces for term in self.terms_of_word(piece)]

    def tokens(self, text: str) -> Iterator[Token]:
        """The text's tokens in order, with their offsets in code points."""
        run: list[tuple[str, int, int]] = []
        for found in TOKEN.finditer(text):
            start, end = found.span()
            if found.lastgroup == "cjk":
                if run and run[-1][2] != start:
                    yield from _bigrams(run)
                    run = []
                run.extend((text[i], i, i + 1) for i in range(start, end))
                continue
            if run:
                yield from _bigrams(run)
                run = []
            raw = found.group()
            if found.lastgroup in {"emoji", "keycap"}:
                yield Token(raw, start, end)
                continue
            for at in range(0, len(raw), MAX_TOKEN_CHARS):
                piece = raw[at : at + MAX_TOKEN_CHARS]
                for term in self.terms_of_word(piece):
                    yield Token(term, start + at, start + at + len(piece))
        yield from _bigrams(run)


def _bigrams(run: list[tuple[str, int, int]]) -> Iterator[Token]:
    """The bigrams of a run of CJK characters; a single character is a token itself."""
    if len(run) == 1:
        yield Token(*run[0])
    for left, right in pairwise(run):
        yield Token(left[0] + right[0], left[1], right[2])
