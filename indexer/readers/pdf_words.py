"""Mends the lines of a PDF: headers and footers that repeat, words broken at the ends of lines, ligatures."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from itertools import pairwise
from statistics import median

from hyblink.indexer.readers.pdf_layout import Line

_LIGATURES = str.maketrans(
    {
        "\ufb00": "ff", "\ufb01": "fi", "\ufb02": "fl", "\ufb03": "ffi", "\ufb04": "ffl", "\ufb05": "st",
        "\ufb06": "st", "\u00a0": " ", "\u00ad": None, "\u200b": None, "\ufeff": None,
    }
)  # fmt: skip
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ufffe\uffff]")
_EDGE = 0.13
_EDGE_LINES = 4
_SAME_PLACE = 0.012
_NUMBERS = re.compile(r"\d+")
_ROMAN = re.compile(r"[ivxlc]{1,7}", re.IGNORECASE)
_VALUES = {"i": 1, "v": 5, "x": 10, "l": 50, "c": 100}
_WORD = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")
_BROKEN = re.compile(r"(?<!\S)\S*?([^\W_]+)([-\u2010\u00ad])$")
_NEXT = re.compile(r"([^\W_]+)\S*")
_KEEP = frozenset(("self", "well", "non", "long", "short", "high", "low", "cross", "half", "full", "ill", "all"))
"""What stands before a hyphen that belongs to the word."""
_ENDINGS = frozenset(
    (
        "y", "ish", "ly", "ness", "age", "ages", "en", "ened", "ens", "er", "ered", "ers", "est", "ing", "ed", "less",
        "ful", "fully", "land", "lands", "light", "lights", "lighted", "lighting", "way", "ways", "ward", "wards",
        "ity", "ow", "ows", "owed", "owing", "sense", "cut", "cuts", "coming", "comings", "hand", "fall", "back",
    )
)  # fmt: skip
"""What goes on a word and is none of its own: `long-` and `er` make no word with a hyphen."""
_SUSPENDED = frozenset(("and", "or", "to", "und", "oder", "bis", "bzw", "sowie", "et", "ou", "y", "o", "e", "en"))
"""Words before which a hyphen stands for the rest of a word: `pre- and postwar`."""
_ACCENT = re.compile(r"([\u00a8\u00b4\u02dc\u02c7\u02da])([^\W\d_])")
_ACCENTS = {
    "\u00a8": "\u0308", "\u00b4": "\u0301", "\u02dc": "\u0303", "\u02c7": "\u030c", "\u02da": "\u030a"
}  # fmt: skip


def without_ligatures(text: str) -> str:
    """The text with letters for ligatures, without soft hyphens and characters of no width.

    Accents that are drawn before their letters (as TeX does) are put on them.
    """
    return _CONTROLS.sub(" ", _ACCENT.sub(_accented, text.translate(_LIGATURES)))


def _accented(match: re.Match[str]) -> str:
    letter = unicodedata.normalize("NFC", match[2].replace("\u0131", "i") + _ACCENTS[match[1]])
    return letter if len(letter) == 1 else match[0]


def without_repeated(lines: list[Line], pages: int) -> list[Line]:
    """The lines without the headers and footers that repeat on pages, but all of them if nothing else is left."""
    seen: dict[tuple[bool, str], list[Line]] = {}
    for line, key in _edge_lines(lines):
        seen.setdefault(key, []).append(line)
    usual = median([line.height for line in lines] or [0.0])
    dropped: set[int] = set()
    for (_, text), together in seen.items():
        for found in _runs(together, pages):
            height = median(line.height for line in found)
            large = height > 1.5 * usual
            if _is_furniture(text, found) and not (large and len({line.text for line in found}) > 1):
                # A title page may show the same words in large letters: they are its title.
                dropped.update(id(line) for line in found if line.height < 1.4 * height)
    return [line for line in lines if id(line) not in dropped] or lines


def _runs(found: list[Line], pages: int) -> list[list[Line]]:
    """The lines that stand at one height of the page on most pages, or on at least three that follow each other.

    Left and right pages may differ. What only happens to begin some pages is no header.
    """
    place = median(line.bottom for line in found)
    found = [line for line in found if abs(line.bottom - place) < _SAME_PLACE]
    on = len({line.page for line in found})
    if on >= 2 and on > pages / 2:
        return [found]
    runs: list[list[Line]] = []
    for line in found:
        if runs and line.page - runs[-1][-1].page <= 2:
            runs[-1].append(line)
        else:
            runs.append([line])
    return [run for run in runs if len({line.page for line in run}) >= 3]


def _edge_lines(lines: list[Line]) -> list[tuple[Line, tuple[bool, str]]]:
    """The outermost lines near the top and bottom of each page, with what they are compared by."""
    by_page: dict[int, list[Line]] = {}
    for line in lines:
        by_page.setdefault(line.page, []).append(line)
    found = []
    for page in by_page.values():
        upper = [line for line in page if (line.top + line.bottom) / 2 > 1 - _EDGE]
        lower = [line for line in page if (line.top + line.bottom) / 2 < _EDGE]
        upper.sort(key=lambda line: -line.top)
        lower.sort(key=lambda line: line.bottom)
        for at_top, edge in ((True, upper), (False, lower)):
            found += [
                (line, (at_top, _folded(line.text)))
                for line in edge[:_EDGE_LINES]
                if any(letter.isalnum() for letter in line.text)
            ]
    return found


def _folded(text: str) -> str:
    """A line but for its numbers."""
    return "#" if _ROMAN.fullmatch(text) else _NUMBERS.sub("#", text.casefold())


def _numbers(text: str) -> list[int]:
    if _ROMAN.fullmatch(text):
        values = [_VALUES[letter] for letter in text.lower()]
        return [sum(-v if v < after else v for v, after in zip(values, [*values[1:], 0], strict=True))]
    return [int(number[-9:]) for number in _NUMBERS.findall(text)]


def _is_furniture(text: str, found: list[Line]) -> bool:
    """True if the lines are the same, or if a number in them counts the pages."""
    if "#" not in text:
        return True
    same = Counter(line.text for line in found)
    if any(letter.isalpha() for letter in text) and same.most_common(1)[0][1] > len(found) / 2:
        return True
    rows = [(line.page, _numbers(line.text)) for line in found]
    steps = [
        [after - before for before, after in zip(one[1], two[1], strict=False)] + [two[0] - one[0]]
        for one, two in pairwise(rows)
    ]
    places = min(len(step) for step in steps) - 1
    counting = max((sum(1 for step in steps if step[at] == step[-1]) for at in range(places)), default=0)
    # A header of a chapter repeats its number on many pages, then goes on to the next.
    standing = sum(1 for one, two in pairwise(found) if one.text == two.text)
    return 2 * max(counting, standing) >= len(steps)


def join_words(lines: list[Line]) -> None:
    """Put the rest of each word that is broken at the end of a line onto that line."""
    words: Counter[str] = Counter()
    for line in lines:
        words.update(match[0].casefold() for match in _WORD.finditer(line.text.rstrip("-\u2010\u00ad")))
    for line, after in pairwise(lines):
        broken = _BROKEN.search(line.text[-120:])
        rest = _NEXT.match(after.text)
        if broken is None or rest is None or (after.page - line.page) > 1:
            continue
        head, hyphen, tail = broken[1], broken[2], rest[1]
        if tail.casefold() in _SUSPENDED and not words[(head + tail).casefold()]:
            continue
        if line.text.isupper() and after.text.isupper() and tail.isalpha() and len(tail) > 3:  # a text in capitals
            head, tail = head.lower(), tail.lower()
        joined = hyphen == "\u00ad" or _is_one_word(head, tail, broken[0], words)
        line.text = (line.text[:-1] if joined else line.text) + rest[0]
        after.text = after.text[rest.end() :].lstrip()


def _is_one_word(head: str, tail: str, before: str, words: Counter[str]) -> bool:
    """True if `head-tail`, broken at its hyphen, is written without one."""
    small, end = head.casefold(), tail.casefold()
    if words[small + end]:
        return True
    if words[f"{small}-{end}"] or before.count("-") > 1:
        return False
    if not (tail.isalpha() and tail.islower() and head.isalpha() and (head.islower() or head.istitle())):
        return False
    if len(head) == 1 or (small in _KEEP and end not in _ENDINGS):
        return False
    # Both are words of this text on their own: `cost-effective`.
    return not (len(head) > 3 and len(tail) > 3 and words[small] > 1 and words[end] > 1)
