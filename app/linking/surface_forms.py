"""Surface forms of names: tokens, their folded and singular forms, and 64-bit keys of token n-grams.

The key of an n-gram is a polynomial hash of its tokens' hashes modulo 2^64. The keys of all n-grams of a text are
therefore computed by a few array operations. Shapes: T tokens of a text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import regex

Keys = npt.NDArray[np.uint64]

MAX_TOKENS = 40
"""The largest number of tokens of a name that is detected in texts. Each CJK character is one token."""
_BASE = np.uint64(0x9E3779B97F4A7C15)
_MASK = 2**64 - 1
_JOINERS = {0x200C: None, 0x200D: None}
_HYPHENS = {"-", "\u2010", "\u2011"}
# A CJK character with its marks; a Korean syllable of letters of its own; a word of letters, digits and marks; any
# other visible character with its marks.
_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uac00-\ud7af"
_ASCII_TOKEN = re.compile(r"[^\W_]+|[^\w\s]|_", re.ASCII)
"""The token pattern for texts that are ASCII only; four times as fast as `_TOKEN`."""
_JAMO = "\u1100-\u11ff\ua960-\ua97c\ud7b0-\ud7fb"
_TOKEN = regex.compile(
    rf"[{_CJK}][\p{{M}}\u11a8-\u11ff]*"
    r"|[\u1100-\u115f\ua960-\ua97c][\u1160-\u11a7\ud7b0-\ud7c6]*[\u11a8-\u11ff\ud7cb-\ud7fb]*"
    rf"|(?:(?![{_CJK}{_JAMO}_])[\w\p{{M}}])(?:(?![{_CJK}{_JAMO}_])[\w\p{{M}}\u200c\u200d])*"
    r"|(?:[^\w\s]|_)\p{M}*|\S"
)
# A name and parentheses, or a name, one comma and another name.
_QUALIFIED = re.compile(r"(\S.*?)\s+\([^()]+\)|(\S.*?)（[^（）]+）|([^,]*\w), ([^\W\d_])[^,]*")
_FUNCTION_WORDS = """
a about above after all also an and any are as at be because been before being below between both but by can
could did do does down during each few for from further had has have he her here him his how i if in into is
it its itself just may me might more most must my no nor not now of off on once only or other our out over own
same shall she should so some such than that the their them then there these they this those through to too
under until up us very was we were what when where which while who whom why will with would you your
"""
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split())


@dataclass(frozen=True, slots=True)
class Tokens:
    """A text's tokens with their offsets in code points, and hashes of their exact, folded and singular forms."""

    words: tuple[str, ...]
    starts_T: npt.NDArray[np.int64]
    ends_T: npt.NDArray[np.int64]
    exact_T: Keys
    folded_T: Keys
    singular_T: Keys

    def __len__(self) -> int:
        return len(self.words)


def singular(word: str) -> str:
    """Return the singular of an English plural, by its ending; other words are unchanged. `word` must be folded.

    >>> [singular(word) for word in ("queries", "classes", "files", "status", "process", "is", "analysis")]
    ['query', 'class', 'file', 'status', 'process', 'is', 'analysis']
    """
    if len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies"):
        return word[:-3] + "y" if len(word) > 4 else word[:-1]
    if word.endswith(("sses", "shes", "ches", "xes", "zes")):
        return word[:-2]
    return word[:-1]


def folded(word: str) -> str:
    """Return the word in NFKC, case-folded, without zero-width joiners."""
    return word.lower() if word.isascii() else unicodedata.normalize("NFKC", word).casefold().translate(_JOINERS)


@lru_cache(maxsize=1 << 16)
def _hashes(word: str) -> tuple[int, int, int]:
    plain = folded(word)
    exact = word if word.isascii() else unicodedata.normalize("NFC", word)
    return _hash(exact), _hash(plain), _hash(singular(plain))


def _hash(word: str) -> int:
    return int.from_bytes(blake2b(word.encode(), digest_size=8).digest(), "little")


def _words(text: str) -> list[tuple[str, int, int]]:
    token = _ASCII_TOKEN if text.isascii() else _TOKEN
    found = [(item.group(), item.start(), item.end()) for item in token.finditer(text)]
    return [result for result in found if result[0] not in _HYPHENS] or found


def tokens(text: str) -> Tokens:
    """Return the tokens of a text. Hyphens are dropped, so that "e-mail" equals "e mail".

    >>> tokens("json.dump, C++").words
    ('json', '.', 'dump', ',', 'C', '+', '+')
    """
    kept = _words(text)
    words = tuple(word for word, _, _ in kept)
    hashes = np.array([_hashes(word) for word in words], dtype=np.uint64).reshape(-1, 3)
    return Tokens(
        words,
        np.array([start for _, start, _ in kept], dtype=np.int64),
        np.array([end for _, _, end in kept], dtype=np.int64),
        hashes[:, 0],
        hashes[:, 1],
        hashes[:, 2],
    )


def words_of(text: str) -> set[str]:
    """Return the distinct folded words of a text, without punctuation and function words.

    >>> sorted(words_of("The json.dump of JSON"))
    ['dump', 'json']
    """
    found = {folded(word) for word, _, _ in _words(text) if word[0].isalnum()}
    return found - FUNCTION_WORDS


def runs(first: Keys, last: Keys, length: int) -> Keys:
    """Return the keys of all n-grams of `length` tokens, shape (T - length + 1,).

    The last token's hash comes from `last`, the others' from `first`, both of shape (T,).
    """
    count = len(first) - length + 1
    if count <= 0:
        return np.zeros(0, dtype=np.uint64)
    key = np.zeros(count, dtype=np.uint64)
    with np.errstate(over="ignore"):
        for at in range(length - 1):
            key = key * _BASE + first[at : at + count]
        return key * _BASE + last[length - 1 : length - 1 + count] + np.uint64(length)


def unqualified(title: str) -> str | None:
    """Return a title without its disambiguating qualifier, as Wikipedia writes it; None if it has none.

    >>> [unqualified(one) for one in ("Mercury (planet)", "Newark, New Jersey", "Tyler, the Creator", "f (x) y")]
    ['Mercury', 'Newark', None, None]
    """
    found = _QUALIFIED.fullmatch(title)
    if found is None or (found.group(4) and not found.group(4).isupper()):
        return None
    name: str = found.group(1) or found.group(2) or found.group(3)
    return name


def ordinary(name: str) -> bool:
    """Return whether a name looks like ordinary words: only lower-case letters and spaces.

    >>> [ordinary(one) for one in ("read back", "read_text", "Queue", "sha256")]
    [True, False, False, False]
    """
    return name.islower() and all(item.isalpha() or item.isspace() for item in name)


class NameKeys(NamedTuple):
    """The keys of a whole name's exact, folded and singular forms, and its number of tokens."""

    exact: int
    folded: int
    singular: int
    tokens: int


def keys_of(name: str) -> NameKeys | None:
    """Return the keys of a whole name; None if it has no token."""
    words = _words(name)
    if not words:
        return None
    hashes = [_hashes(word) for word, _, _ in words]
    plain = [item[1] for item in hashes]
    return NameKeys(
        _key([item[0] for item in hashes]), _key(plain), _key([*plain[:-1], hashes[-1][2]]), len(words)
    )  # fmt: skip


def _key(hashes: Sequence[int]) -> int:
    """The key that `runs` computes for an n-gram of exactly these tokens."""
    key = 0
    for item in hashes:
        key = (key * int(_BASE) + item) & _MASK
    return (key + len(hashes)) & _MASK
