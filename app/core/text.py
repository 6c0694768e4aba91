"""The analyzer: what a word is, in every engine.

Tokens are UAX #29 words (Unicode default word boundaries, as Lucene's standard tokenizer finds them), then:
lower case → English possessive → stop words → identifier parts → stemmer (Snowball English) → CJK bigrams.
A compound such as ``json.dump`` or ``to_dict`` is kept whole and also indexed by its parts, so that exact names
stay exact and their words are found too. Runs of Han, Hiragana, Katakana and Hangul become overlapping bigrams.

Every token knows the code points it came from; highlights are made from that.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from threading import Lock, local

import numpy as np
import regex

from app.core.errors import InvalidInputError

MAX_TOKEN_CHARS = 255
"""Longer words are cut into pieces of this length, as Lucene does."""

ENGLISH_STOP_WORDS = frozenset(
    [
        "a",
        "an",
        "and",
        "are",
        "as",
        "at",
        "be",
        "but",
        "by",
        "for",
        "if",
        "in",
        "into",
        "is",
        "it",
        "no",
        "not",
        "of",
        "on",
        "or",
        "such",
        "that",
        "the",
        "their",
        "then",
        "there",
        "these",
        "they",
        "this",
        "to",
        "was",
        "will",
        "with",
    ]
)
"""Lucene's English stop set."""

_REMEMBERED = 500_000
_MANY = 64
"""Texts from which on a table of words is worth its loading."""
ANALYZER_VERSION = 2
"""Raised whenever the same text would give other terms: indexes of another version are derived again."""

ANALYZERS = ("english", "standard")

_X = r"[\p{WB=Extend}\p{WB=Format}\p{WB=ZWJ}]*"
_LETTER = rf"(?:[\p{{WB=ALetter}}\p{{WB=Hebrew_Letter}}]{_X})"
_NUMBER = rf"(?:\p{{WB=Numeric}}{_X})"
_JOIN = rf"(?:\p{{WB=ExtendNumLet}}{_X})"
_MID_LETTER = rf"(?:[\p{{WB=MidLetter}}\p{{WB=MidNumLet}}']{_X})"
_MID_NUMBER = rf"(?:[\p{{WB=MidNum}}\p{{WB=MidNumLet}}']{_X})"
_WORD = (
    rf"{_JOIN}*(?:{_LETTER}|{_NUMBER})"
    rf"(?:{_LETTER}|{_NUMBER}|{_JOIN}"
    rf"|(?<=[\p{{WB=ALetter}}\p{{WB=Hebrew_Letter}}]{_X}){_MID_LETTER}(?={_LETTER})"
    rf"|(?<=\p{{WB=Hebrew_Letter}}{_X})(?:'|\"(?=\p{{WB=Hebrew_Letter}}))"
    rf"|(?<=\p{{WB=Numeric}}{_X}){_MID_NUMBER}(?={_NUMBER}))*"
)
# Han that Unicode counts as letters (iteration marks) belongs to words, as it does in Lucene.
_CJK_CHAR = r"[[\p{Script=Han}--\p{WB=ALetter}]\p{Script=Hiragana}]"
# Hangul that touches letters or digits of another script is one word with them.
_MORE_OF_WORD = rf"{_LETTER}|{_NUMBER}|{_JOIN}|{_MID_LETTER}{_LETTER}"
_CJK_RUN = rf"\p{{WB=Katakana}}+|[\p{{Script=Hangul}}&&\p{{WB=ALetter}}]++(?!{_MORE_OF_WORD})"
_SOUTH_EAST = r"\p{Line_Break=Complex_Context}+"
_KEYCAP = rf"[0-9#*]\ufe0f?\u20e3(?!{_LETTER}|{_NUMBER}|{_JOIN})"
# Extended_Pictographic as of Unicode 12.1, the version of Lucene's tokenizer; later ones have fewer.
_PICTOGRAPH = (
    r"\u00a9\u00ae\u203c\u2049\u2122\u2139\u2194-\u2199\u21a9-\u21aa\u231a-\u231b\u2328\u2388\u23cf\u23e9-\u23f3"
    r"\u23f8-\u23fa\u24c2\u25aa-\u25ab\u25b6\u25c0\u25fb-\u25fe\u2600-\u2605\u2607-\u2612\u2614-\u2685"
    r"\u2690-\u2705\u2708-\u2712\u2714\u2716\u271d\u2721\u2728\u2733-\u2734\u2744\u2747\u274c\u274e\u2753-\u2755"
    r"\u2757\u2763-\u2767\u2795-\u2797\u27a1\u27b0\u27bf\u2934-\u2935\u2b05-\u2b07\u2b1b-\u2b1c\u2b50\u2b55\u3030"
    r"\u303d\u3297\u3299\U0001f000-\U0001f0ff\U0001f10d-\U0001f10f\U0001f12f\U0001f16c-\U0001f171"
    r"\U0001f17e-\U0001f17f\U0001f18e\U0001f191-\U0001f19a\U0001f1ad-\U0001f1e5\U0001f201-\U0001f20f\U0001f21a"
    r"\U0001f22f\U0001f232-\U0001f23a\U0001f23c-\U0001f23f\U0001f249-\U0001f3fa\U0001f400-\U0001f53d"
    r"\U0001f546-\U0001f64f\U0001f680-\U0001f6ff\U0001f774-\U0001f77f\U0001f7d5-\U0001f7ff\U0001f80c-\U0001f80f"
    r"\U0001f848-\U0001f84f\U0001f85a-\U0001f85f\U0001f888-\U0001f88f\U0001f8ae-\U0001f8ff\U0001f90c-\U0001f93a"
    r"\U0001f93c-\U0001f945\U0001f947-\U0001fffd"
)
_PICTURE = rf"[{_PICTOGRAPH}](?:\ufe0f|\p{{Emoji_Modifier}})?[\U000e0020-\U000e007f]*"
_EMOJI = rf"\p{{Regional_Indicator}}{{2}}|{_PICTURE}(?:\u200d{_PICTURE})*|\p{{Emoji_Modifier}}"
_TOKEN = regex.compile(
    rf"(?P<cjk>{_CJK_CHAR}|{_CJK_RUN})|(?P<keycap>{_KEYCAP})|(?P<word>{_WORD})|(?P<sea>{_SOUTH_EAST})"
    rf"|(?P<emoji>{_EMOJI})",
    regex.VERSION1,
)
# The same rules for texts of Latin letters and common punctuation only, where the standard library's `re` is four
# times as fast; a property test holds the two to each other.
_LATIN = r"A-Za-z\u00aa\u00b5\u00ba\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u02af"
_MIDDLE_OF_WORD = r".:'\u00b7\u2018\u2019\u2024"
_MIDDLE_OF_NUMBER = r".,;'\u2018\u2019\u2024"
_LATIN_TOKEN = re.compile(
    rf"_*[{_LATIN}0-9](?:[{_LATIN}0-9_]+|(?<=[{_LATIN}])[{_MIDDLE_OF_WORD}](?=[{_LATIN}])"
    rf"|(?<=[0-9])[{_MIDDLE_OF_NUMBER}](?=[0-9]))*"
)
_ODD_FROM = 0x2027
_ODD = r"\u00a9\u00ad\u00ae\u00b8\u02b0-\u200f\u2027-\U0010ffff"
_ODD_CHAR = re.compile(rf"[{_ODD}]")
_SPACE = re.compile(r"\s")
_PART = regex.compile(r"[\p{L}\p{N}][\p{L}\p{N}\p{M}'’]*")
_COMPOUND = regex.compile(r"[^\p{L}\p{N}\p{M}'’]")
_POSSESSIVE = ("'s", "’s", "＇s", "'S", "’S", "＇S")
_FORBIDDEN = re.compile("[\x00\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Token:
    """An analyzed term and the code points `start:end` of the text that it came from."""

    term: str
    start: int
    end: int


def check_text(text: object, name: str) -> str:
    """`text` itself if it is a string that can be stored anywhere.

    Raises InvalidInputError for other types, NUL characters and lone surrogates.
    """
    if not isinstance(text, str):
        raise InvalidInputError(f"{name} has the wrong type", received=text, expected="a string")
    if text.isascii() and "\x00" not in text:
        return text
    found = _FORBIDDEN.search(text)
    if found:
        kind = "a NUL character" if found.group() == "\x00" else "a lone surrogate"
        raise InvalidInputError(
            f"{name} holds {kind} at character {found.start()}",
            received=text[max(0, found.start() - 10) : found.start() + 10],
            expected="text without NUL characters and lone surrogates",
        )
    return text


class _Stemmers(local):
    """Snowball stemmers keep state while they work: one per thread."""

    @cached_property
    def english(self) -> Callable[[str], str]:
        import Stemmer

        snowball = Stemmer.Stemmer("english")
        snowball.maxCacheSize = 0
        plain: Callable[[str], str] = snowball.stemWord

        def stem(word: str) -> str:
            # Lucene's generation of the algorithm keeps the double letter of "added", "egged", "erring".
            found = plain(word)
            doubled = len(found) == 2 and found[0] in "aeo" and word.startswith(found + found[1]) and len(word) > 4
            return found + found[1] if doubled else found

        return stem


_stemmers = _Stemmers()


def _lower(word: str) -> str:
    """Lower case letter by letter, as Lucene does: no final sigma, and the Turkish capital İ becomes a plain i."""
    return word.lower() if word.isascii() else "".join("i" if c == "İ" else c.lower() for c in word)


def _strip_possessive(word: str) -> str:
    return word[:-2] if len(word) > 2 and word.endswith(_POSSESSIVE) else word


def _parts(word: str) -> list[str]:
    """The word, then its identifier parts if it is a compound.

    >>> _parts("json.dump"), _parts("__init__"), _parts("don't")
    (['json.dump', 'json', 'dump'], ['__init__', 'init'], ["don't"])
    """
    if word.isalnum() or not _COMPOUND.search(word):
        return [word]
    return [word, *_PART.findall(word)]


@lru_cache(maxsize=200_000)
def _english_terms(raw: str) -> tuple[str, ...]:
    terms = []
    raw = fold(raw)
    for part in _parts(_lower(_strip_possessive(raw))):
        if part not in ENGLISH_STOP_WORDS:
            stemmed = _stemmers.english(part)
            if stemmed:
                terms.append(stemmed)
    return tuple(terms)


@lru_cache(maxsize=200_000)
def _standard_terms(raw: str) -> tuple[str, ...]:
    return tuple(_parts(_lower(fold(raw))))


_TERMS: dict[str, Callable[[str], tuple[str, ...]]] = {"english": _english_terms, "standard": _standard_terms}


_UNCACHED = {name: terms_of.__wrapped__ for name, terms_of in _TERMS.items()}  # type: ignore[attr-defined]


class _JoinedTerms(dict[str, str]):
    """Raw word → its terms joined by spaces, remembered; emptied when it grows over its bound."""

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
    """Turns text into terms. Cheap to make, safe to share between threads.

    `name` is `english` (stop words, possessive, stemmer) or `standard` (none of them); both cut CJK into bigrams.

    >>> Analyzer("english").terms("The dogs' owner's json.dump and 機械学習")
    ['dog', 'owner', 'json.dump', 'json', 'dump', '機械', '械学', '学習']
    """

    def __init__(self, name: str = "english") -> None:
        if name not in _TERMS:
            raise InvalidInputError("unknown analyzer", received=name, expected=f"one of {', '.join(ANALYZERS)}")
        self.name = name
        self.id = f"{name}:{ANALYZER_VERSION}"
        self.terms_of_word = _TERMS[name]
        self._joined = _JoinedTerms(self._long)

    def terms(self, text: str) -> list[str]:
        """The text's terms in order, repeats kept."""
        terms: list[str] = []
        for piece, latin in _pieces(text):
            if not latin:
                terms += [token.term for token in self.tokens(piece)]
                continue
            for raw in _LATIN_TOKEN.findall(piece):
                terms += self._long(raw)
        return terms

    def joined(self, text: str) -> str:
        """The terms joined by single or double spaces: what an index with a white-space tokenizer is fed."""
        remembered = self._joined.__getitem__
        return " ".join(
            " ".join(map(remembered, _LATIN_TOKEN.findall(piece)) if latin else (t.term for t in self.tokens(piece)))
            for piece, latin in _pieces(text)
        )

    def joined_many(self, texts: Sequence[str]) -> list[str]:
        """`joined` of each text; much faster for many."""
        if len(texts) < _MANY:
            return [self.joined(text) for text in texts]
        return self._many.joined(texts)

    @cached_property
    def _many(self) -> _ManyTexts:
        return _ManyTexts(self)

    def _long(self, raw: str) -> Sequence[str]:
        if len(raw) <= MAX_TOKEN_CHARS:
            return self.terms_of_word(raw)
        pieces = [raw[i : i + MAX_TOKEN_CHARS] for i in range(0, len(raw), MAX_TOKEN_CHARS)]
        return [term for piece in pieces for term in self.terms_of_word(piece)]

    def tokens(self, text: str) -> Iterator[Token]:
        """The text's tokens in order, with the code points that each came from."""
        run: list[tuple[str, int, int]] = []
        for found in _TOKEN.finditer(text):
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


class _ManyTexts:
    """Terms of many texts through a table of their words. Safe to share between threads: they take turns."""

    def __init__(self, analyzer: Analyzer) -> None:
        from app.core import words

        self._analyzer = analyzer
        self._words = words
        self._lock = Lock()
        self._terms_of = _UNCACHED[analyzer.name]  # the table remembers what it was told
        points = [chr(point) for point in range(_ODD_FROM)]
        classes = np.zeros(_ODD_FROM, dtype=np.uint8)
        for kind, members in (
            (words.LETTER, rf"[{_LATIN}]"),
            (words.DIGIT, "[0-9]"),
            (words.JOIN, "_"),
            (words.MID_LETTER, rf"[{_MIDDLE_OF_WORD}]"),
            (words.MID_NUMBER, rf"[{_MIDDLE_OF_NUMBER}]"),
            (words.ODD, rf"[{_ODD}]"),
        ):
            classes[[at for at, point in enumerate(points) if re.match(members, point)]] |= kind
        self._classes = classes
        self._start()

    def _start(self) -> None:
        self._table = self._words.WordTable(self._classes, self._words.ODD, lower=False)
        self._terms = self._words.Values(np.uint8)

    def joined(self, texts: Sequence[str]) -> list[str]:
        """Pieces of Latin letters go through the table, others are analyzed singly."""
        pieces: list[str] = []
        plan: list[list[int | str]] = []
        for text in texts:
            if not _ODD_CHAR.search(text):
                plan.append([len(pieces)])
                pieces.append(text)
                continue
            parts: list[int | str] = []
            for piece, latin in _pieces(text):
                parts.append(len(pieces) if latin else self._analyzer.joined(piece))
                if latin:
                    pieces.append(piece)
            plan.append(parts)
        done = self._joined(pieces)
        return [" ".join([done[part] if isinstance(part, int) else part for part in parts]) for parts in plan]

    def _joined(self, pieces: Sequence[str]) -> list[str]:
        with self._lock:
            if self._table.full:
                self._start()
            found = self._table.cut(pieces)
            terms_of, word = self._terms_of, self._table.word
            new = [" ".join(terms_of(word(n))).encode() for n in range(len(self._terms), len(self._table))]
            self._terms.extend([len(one) for one in new], np.frombuffer(b"".join(new), dtype=np.uint8))
            terms, offsets = self._terms.data, self._terms.offsets
            out = np.empty(self._terms.total(found) + len(found.numbers), dtype=np.uint8)
        ends = np.empty(len(pieces), dtype=np.int64)
        self._words.join_values(found.numbers, found.ends, offsets, terms, out, ends)
        joined, start, whole = [], 0, memoryview(out)  # type: ignore[arg-type]
        for piece, end, odd in zip(pieces, ends.tolist(), found.odd.tolist(), strict=True):
            joined.append(self._analyzer.joined(piece) if odd else str(whole[start:end], "utf-8"))
            start = end
        return joined


def _pieces(text: str) -> Iterator[tuple[str, bool]]:
    """The text cut at white space into pieces of Latin letters only (True) and others (False)."""
    last = 0
    while odd := _ODD_CHAR.search(text, last):
        start = odd.start()
        while start > last and not text[start - 1].isspace():
            start -= 1
        space = _SPACE.search(text, odd.end())
        end = space.start() if space else len(text)
        if start > last:
            yield text[last:start], True
        yield text[start:end], False
        last = end
    if last < len(text):
        yield text[last:], True


def _bigrams(run: list[tuple[str, int, int]]) -> Iterator[Token]:
    """Overlapping pairs of adjacent CJK characters; a single one stands alone."""
    if len(run) == 1:
        yield Token(*run[0])
    for left, right in pairwise(run):
        yield Token(left[0] + right[0], left[1], right[2])


def fold(text: str) -> str:
    """Canonical composition (NFC). Terms are folded one by one, so offsets are those of the text as it was sent."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)
