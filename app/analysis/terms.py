"""The terms of a single word: lower case, possessive, stop words, identifier parts, stemmer (Snowball English)."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, lru_cache
from threading import local

import regex

from hyblink.app.core.checks import fold

MAX_TOKEN_CHARS = 255
"""Longer words are split into pieces of this length, as in Lucene."""

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

ANALYZER_VERSION = 2
"""The analyzer version. Increase it when a text's terms change: indexes of another version are then rebuilt."""

ANALYZERS = ("english", "standard")

_PART = regex.compile(r"[\p{L}\p{N}][\p{L}\p{N}\p{M}'’]*")

_COMPOUND = regex.compile(r"[^\p{L}\p{N}\p{M}'’]")

_POSSESSIVE = ("'s", "’s", "＇s", "'S", "’S", "＇S")


class _Stemmers(local):
    """One Snowball stemmer per thread, because stemmers are stateful."""

    @cached_property
    def english(self) -> Callable[[str], str]:
        import Stemmer

        snowball = Stemmer.Stemmer("english")
        snowball.maxCacheSize = 0
        plain: Callable[[str], str] = snowball.stemWord

        def stem(word: str) -> str:
            # Lucene's version of the algorithm keeps the double letter of "added", "egged", "erring".
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


TERMS_OF_WORD: dict[str, Callable[[str], tuple[str, ...]]] = {"english": _english_terms, "standard": _standard_terms}

UNCACHED_TERMS_OF_WORD = {name: terms_of.__wrapped__ for name, terms_of in TERMS_OF_WORD.items()}  # type: ignore[attr-defined]
