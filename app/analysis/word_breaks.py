"""Regular expressions for word boundaries: UAX #29 as in Lucene's standard tokenizer, and a faster Latin version.

Runs of Han, Hiragana, Katakana and Hangul are distinguished from words. Each emoji is a token."""

from __future__ import annotations

import re
from collections.abc import Iterator

import regex

_X = r"[\p{WB=Extend}\p{WB=Format}\p{WB=ZWJ}]*"

_LETTER = rf"(?:[\p{{WB=ALetter}}\p{{WB=Hebrew_Letter}}]{_X})"

_NUMBER = rf"(?:\p{{WB=Numeric}}{_X})"

_JOIN = rf"(?:\p{{WB=ExtendNumLet}}{_X})"

_MID_LETTER = rf"(?:[\p{{WB=MidLetter}}\p{{WB=MidNumLet}}']{_X})"

_MID_NUMBER = rf"(?:[\p{{WB=MidNum}}\p{{WB=MidNumLet}}']{_X})"

# Underscores belong to the word behind them. A row of them is looked through from its beginning only: from each of them
# it would take quadratic time.
_WORD = (
    rf"(?:(?<!{_JOIN}){_JOIN}+)?(?:{_LETTER}|{_NUMBER})"
    rf"(?:{_LETTER}|{_NUMBER}|{_JOIN}"
    rf"|(?<=[\p{{WB=ALetter}}\p{{WB=Hebrew_Letter}}]{_X}){_MID_LETTER}(?={_LETTER})"
    rf"|(?<=\p{{WB=Hebrew_Letter}}{_X})(?:'|\"(?=\p{{WB=Hebrew_Letter}}))"
    rf"|(?<=\p{{WB=Numeric}}{_X}){_MID_NUMBER}(?={_NUMBER}))*"
)

# Han characters of the class ALetter (iteration marks) belong to words, as in Lucene.
_CJK_CHAR = r"[[\p{Script=Han}--\p{WB=ALetter}]\p{Script=Hiragana}]"

# Hangul adjacent to letters or digits of another script forms one word with them.
_MORE_OF_WORD = rf"{_LETTER}|{_NUMBER}|{_JOIN}|{_MID_LETTER}{_LETTER}"

_CJK_RUN = rf"\p{{WB=Katakana}}+|[\p{{Script=Hangul}}&&\p{{WB=ALetter}}]++(?!{_MORE_OF_WORD})"

_SOUTH_EAST = r"\p{Line_Break=Complex_Context}+"

_KEYCAP = rf"[0-9#*]\ufe0f?\u20e3(?!{_LETTER}|{_NUMBER}|{_JOIN})"

# Extended_Pictographic of Unicode 12.1, the version of Lucene's tokenizer. Later versions contain fewer characters.
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

TOKEN = regex.compile(
    rf"(?P<cjk>{_CJK_CHAR}|{_CJK_RUN})|(?P<keycap>{_KEYCAP})|(?P<word>{_WORD})|(?P<sea>{_SOUTH_EAST})"
    rf"|(?P<emoji>{_EMOJI})",
    regex.VERSION1,
)

# The same rules for texts of Latin letters and common punctuation only. The standard library's `re` is four times as
# fast as `regex`. A property test checks that both give the same tokens.
LATIN = r"A-Za-z\u00aa\u00b5\u00ba\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u02af"

MIDDLE_OF_WORD = r".:'\u00b7\u2018\u2019\u2024"

MIDDLE_OF_NUMBER = r".,;'\u2018\u2019\u2024"

LATIN_TOKEN = re.compile(
    rf"(?:(?<!_)_+)?[{LATIN}0-9](?:[{LATIN}0-9_]+|(?<=[{LATIN}])[{MIDDLE_OF_WORD}](?=[{LATIN}])"
    rf"|(?<=[0-9])[{MIDDLE_OF_NUMBER}](?=[0-9]))*"
)

ODD_FROM = 0x2027

ODD = r"\u00a9\u00ad\u00ae\u00b8\u02b0-\u200f\u2027-\U0010ffff"

ODD_CHAR = re.compile(rf"[{ODD}]")

_SPACE = re.compile(r"\s")


def latin_pieces(text: str) -> Iterator[tuple[str, bool]]:
    """(piece, is Latin) of a text split at white space: Latin pieces can be tokenised with `LATIN_TOKEN`.

    A piece with any character of `ODD` is not Latin and needs `TOKEN`.
    """
    last = 0
    while odd := ODD_CHAR.search(text, last):
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
