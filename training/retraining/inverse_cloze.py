"""Generates training questions from a corpus with the inverse cloze task (Lee, Chang & Toutanova 2019, section 5).

A sentence of a document, with the document's name masked, is the question; the text around it is the answer. In about
half of the answers the sentence is removed, so that the model does not only learn word overlap. A hash of the document
id decides whether a document is used for training or held out.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from hyblink.app.core.checks import fold

_PARAGRAPH = re.compile(r"\n\s*\n")
_SENTENCE = re.compile(r"(?<=[.!?。！？])\s*(?=[A-Z\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7a3])")
_CJK = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7a3]")
_WORD = re.compile(r"\w+")
_CODE = re.compile(r"^(\s*>>>|\s{4,}\S|\s*[-*|+=]{3,})", re.MULTILINE)
_PARTS = re.compile(r"[\s./:_()\[\],]+")
_LEAST_WORDS, _MOST_WORDS = 5, 40
_LEAST_CHARS, _MOST_CHARS = 12, 120
_LETTERS = 0.7
_AROUND = 800
_KEPT = 2
"""One answer in this many keeps the sentence of its question."""


@dataclass(frozen=True, slots=True)
class Source:
    """A document to generate questions from."""

    id: str
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Generated:
    """A generated question (`query`) with its document and the text around its sentence (`answer`)."""

    query: str
    document_id: str
    title: str
    answer: str
    held_out: bool


def digest(*parts: str) -> int:
    """A 64-bit hash of some strings, the same on every machine."""
    joined = "\0".join(parts).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(joined, digest_size=8).digest(), "big")


def masked(sentence: str, title: str) -> str:
    """The sentence without the document's title and without the title's parts of over two letters.

    >>> masked("json.dumps is like dump(), but dumps returns text.", "json.dumps")
    'is like dump(), but returns text.'
    """
    names = {title, *(part for part in _PARTS.split(title) if len(part) > 2)}
    found = sentence
    for name in sorted(filter(None, names), key=len, reverse=True):
        edge = r"\b" if not _CJK.search(name) else ""
        found = re.sub(rf"{edge}{re.escape(name)}{edge}(\(\))?", " ", found, flags=re.IGNORECASE)
    return " ".join(found.split())


def sentences(text: str) -> Iterator[tuple[str, str]]:
    """Yield (sentence, its paragraph) for sentences usable as questions; code, tables and signatures are skipped."""
    for paragraph in _PARAGRAPH.split(text):
        if _CODE.search(paragraph):
            continue
        flat = " ".join(paragraph.split())
        for sentence in _SENTENCE.split(flat):
            if _speaks(sentence):
                yield sentence, flat


def _speaks(sentence: str) -> bool:
    letters = sum(char.isalpha() or char.isspace() for char in sentence)
    if letters < _LETTERS * len(sentence) or sentence[-1:] not in set(".!?。！？"):
        return False
    if _CJK.search(sentence):
        return _LEAST_CHARS <= len(sentence) <= _MOST_CHARS
    return _LEAST_WORDS <= len(_WORD.findall(sentence)) <= _MOST_WORDS


def _around(text: str, sentence: str, keep: bool) -> str:
    """Up to 800 characters on each side of a sentence, and the sentence if `keep` or if nothing else is left."""
    flat = " ".join(text.split())
    at = flat.index(sentence)
    end = at + len(sentence)
    before, after = flat[max(0, at - _AROUND) : at], flat[end : end + _AROUND]
    without = " ".join(f"{before} {after}".split())
    return f"{before}{sentence}{after}" if keep or not _WORD.search(without) else without


def generate(documents: Iterable[Source], *, seed: int = 0, held_out_share: float = 0.25) -> list[Generated]:
    """Generate one question per document that has a usable sentence. Questions shared by several are dropped.

    About `held_out_share` (0 to 1) of the documents are marked as held out.
    """
    made: dict[str, Generated | None] = {}
    for document in documents:
        found = _question(document, seed, held_out_share)
        if found is not None:
            key = fold(found.query).casefold()
            made[key] = None if key in made else found
    return [item for item in made.values() if item is not None]


def _question(source: Source, seed: int, held_out_share: float) -> Generated | None:
    choices = sorted(sentences(source.text), key=lambda found: digest(str(seed), source.id, found[0]))
    for sentence, _ in choices:
        query = masked(sentence, source.title)
        if not _speaks(query):
            continue
        keep = digest("kept", str(seed), source.id) % _KEPT == 0
        held_out = digest("held out", source.id) % 10_000 < held_out_share * 10_000
        return Generated(query, source.id, source.title, _around(source.text, sentence, keep), held_out)
    return None
