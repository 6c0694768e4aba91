"""The analyzer's fast paths and its general one are one analyzer."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from hyblink.app.analysis.analyzer import Analyzer

ANALYZERS = [Analyzer("english"), Analyzer("standard")]
texts = st.one_of(
    st.text(max_size=80),
    st.text(alphabet="ab1.,:;'’‘·_ 2éßʯ²¼º\u2024…-\u00ad\u0301機カ한👍", max_size=30),
)


@settings(max_examples=1500, deadline=None)
@given(texts)
@example("a\u00adb c")
@example("_ __a _1")
@example("x" * 256 + ".y")
def test_fast_and_general_paths_agree(text: str) -> None:
    for analyzer in ANALYZERS:
        general = [token.term for token in analyzer.tokens(text)]
        assert analyzer.terms(text) == general
        assert analyzer.joined(text).split() == general
        assert [one.split() for one in analyzer.joined_many([text, "x", text] * 22)] == [general, ["x"], general] * 22


@given(texts)
def test_tokens_stand_in_order_within_the_text(text: str) -> None:
    last = 0
    for token in ANALYZERS[1].tokens(text):
        assert last <= token.start < token.end <= len(text)
        last = token.start
