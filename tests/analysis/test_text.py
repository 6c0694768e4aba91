"""The analyzer."""

from __future__ import annotations

import pytest

from hyblink.app.analysis.analyzer import Analyzer
from hyblink.app.analysis.terms import MAX_TOKEN_CHARS
from hyblink.app.core.checks import check_text
from hyblink.app.core.errors import InvalidInputError

ENGLISH = Analyzer("english")


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("The quick brown foxes", ["quick", "brown", "fox"]),
        ("O'Neil's dogs’ bones", ["o'neil", "dog", "bone"]),
        ("json.dumps and os.path.join", ["json.dump", "json", "dump", "os.path.join", "os", "path", "join"]),
        ("__init__ to_dict", ["__init__", "init", "to_dict", "dict"]),
        ("3.14 1,000", ["3.14", "3", "14", "1,000", "1", "000"]),
        ("機械学習 カタカナ ひらがな", ["機械", "械学", "学習", "カタ", "タカ", "カナ", "ひら", "らが", "がな"]),
        ("한국어", ["한국", "국어"]),
        ("字", ["字"]),
        ("naïve Café", ["naïv", "café"]),
        ("שלום עולם", ["שלום", "עולם"]),
        ("👍🏽 ok", ["👍🏽", "ok"]),
        ("", []),
        ("... --- !!!", []),
        ('title:(a OR "b c"~2) AND [1 TO *]', ["titl", "b", "c", "2", "1"]),
    ],
)
def test_terms(text: str, terms: list[str]) -> None:
    assert ENGLISH.terms(text) == terms
    assert ENGLISH.joined(text).split() == terms


def test_standard_keeps_stop_words_and_endings() -> None:
    assert Analyzer("standard").terms("The foxes' dens") == ["the", "foxes", "dens"]


def test_tokens_know_their_place() -> None:
    text = "Use json.dump 機械"
    assert [(t.term, text[t.start : t.end]) for t in ENGLISH.tokens(text)] == [
        ("use", "Use"),
        ("json.dump", "json.dump"),
        ("json", "json.dump"),
        ("dump", "json.dump"),
        ("機械", "機械"),
    ]


def test_long_words_are_cut() -> None:
    assert [len(t) for t in Analyzer("standard").terms("x" * 600)] == [MAX_TOKEN_CHARS, MAX_TOKEN_CHARS, 90]


def test_unknown_analyzer() -> None:
    with pytest.raises(InvalidInputError, match="unknown analyzer; received 'klingon'; expected one of english"):
        Analyzer("klingon")


@pytest.mark.parametrize("bad", ["a\x00b", "\ud800", 3, None])
def test_text_that_cannot_be_stored_is_refused(bad: object) -> None:
    with pytest.raises(InvalidInputError, match="query"):
        check_text(bad, "query")
