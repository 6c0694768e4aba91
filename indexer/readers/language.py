"""Finds out the language of a text: by its script where that says it, by frequent English words, else by py3langid.

The identifier is the naive Bayes model over byte n-grams of Lui and Baldwin, "langid.py: An Off-the-shelf Language
Identification Tool", ACL 2012, as py3langid ships it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable

_LOOKED_AT = 600
_LEAST_LETTERS = 20
_LEAST_PROBABILITY = 0.7
_BEGINNING = 450
_LANGUAGES = (
    "af", "ar", "az", "bg", "bn", "ca", "cs", "cy", "da", "de", "el", "en", "es", "et", "eu", "fa", "fi", "fr", "ga",
    "he", "hi", "hr", "hu", "hy", "id", "is", "it", "ja", "ka", "kk", "ko", "lt", "lv", "mk", "ms", "nl", "no", "pl",
    "pt", "ro", "ru", "sk", "sl", "sq", "sr", "sv", "sw", "ta", "te", "th", "tr", "uk", "ur", "vi", "zh",
)  # fmt: skip
"""Rarer languages are left out: short texts would be taken for one of them."""
_ENGLISH = frozenset(
    (
        "the", "and", "with", "that", "this", "from", "which", "were", "have", "for", "are", "was", "not", "you",
        "they", "their", "of", "to", "is", "by", "it", "be", "if", "or", "can", "when", "has",
    )
)  # fmt: skip
_FOREIGN = re.compile(r"[^\x00-\x7f‘’“”–—…•·©®™€£]")
_ENGLISH_WORDS, _MANY_ENGLISH_WORDS = 4, 7
_ONLY_ENGLISH = frozenset(("the", "and", "with", "that", "this", "which", "from"))
"""One of these is among the words: `is`, `of`, `was` and `by` are words of Afrikaans too."""
_SCRIPTS = (
    ("ja", re.compile(r"[\u3040-\u30ff]")),
    ("ko", re.compile(r"[\uac00-\ud7af]")),
    ("zh", re.compile(r"[\u4e00-\u9fff]")),
    ("el", re.compile(r"[\u0370-\u03ff]")),
    ("he", re.compile(r"[\u0590-\u05ff]")),
    ("th", re.compile(r"[\u0e00-\u0e7f]")),
)
_SHARE = 0.3
"""The least share of letters of a script that says the language. Japanese has fewer of its own beside Chinese ones."""


def language_of(text: str) -> str:
    """The ISO 639-1 code of a text's language; "" for one that is too short or too mixed to tell.

    >>> language_of("The keys are on the table and the door is not locked.")
    'en'
    >>> language_of("json.dumps")
    ''
    """
    beginning = text[:_BEGINNING]
    english = _ENGLISH.intersection(beginning.lower().split())
    is_plain = len(english) >= _MANY_ENGLISH_WORDS or not _FOREIGN.search(beginning)
    if len(english) >= _ENGLISH_WORDS and is_plain and not _ONLY_ENGLISH.isdisjoint(english):
        return "en"  # nearly all of English, fifty times as fast
    sample = text[:_LOOKED_AT]
    letters = sum(map(str.isalpha, sample))
    if not letters:
        return ""
    if _FOREIGN.search(sample):
        for code, script in _SCRIPTS:
            if len(script.findall(sample)) >= (_SHARE / 3 if code == "ja" else _SHARE) * letters:
                return code
    if letters < _LEAST_LETTERS:
        return ""
    code, probability = _classify()(sample)
    return code if probability >= _LEAST_PROBABILITY else ""


@functools.cache
def _classify() -> Callable[[str], tuple[str, float]]:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(_LANGUAGES)
    found: Callable[[str], tuple[str, float]] = identifier.classify
    return found
